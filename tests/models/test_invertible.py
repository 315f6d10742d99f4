"""The invertible U-Net: what is exactly invertible, and what its inconsistency means."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.models import InvertibleUNet
from fwi_lightning.models.invertible import InvertibleBody, haar, unhaar
from fwi_lightning.models.scale import normalise_velocity
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey
from fwi_lightning.training.losses import head_losses

SMALL = {"width": 8, "levels": 3}


@pytest.fixture(scope="module")
def pairs():
    velocity = torch.from_numpy(np.concatenate([draw("FlatVel_A", 2, seed=0), draw("CurveFault_B", 2, seed=0)]))
    return simulate(velocity[:, 0]), velocity


def test_haar_is_orthonormal_and_its_first_channels_are_means():
    x = torch.randn(2, 3, 8, 6)
    y = haar(x)
    assert y.shape == (2, 12, 4, 3)
    torch.testing.assert_close(y[:, :3], 2 * torch.nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(y.square().sum(dim=(1, 2, 3)), x.square().sum(dim=(1, 2, 3)))
    torch.testing.assert_close(unhaar(y), x)
    steps = torch.zeros(1, 1, 2, 2)
    steps[..., 1] = 1.0  # a jump from column to column shows in one channel beside the mean
    assert torch.equal(haar(steps).flatten(), torch.tensor([1.0, -1.0, 0.0, 0.0]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("coarseness", [1, 2])
def test_the_body_runs_backwards_on_the_features_of_real_records(pairs, coarseness, training):
    torch.manual_seed(0)
    model = InvertibleUNet(OPENFWI, **SMALL, blocks=2, coarseness=coarseness).train(training)
    model.transform.fit(model.transform.mean_squares(pairs[0]).mean(dim=0))
    with torch.no_grad(), parametrize.cached():
        features = model.net.stem(model.read(pairs[0]))
        there = model.net.body(features)
        back = model.net.body.inverse(there)
    assert (there - features).abs().mean() > 0.1, "the body does nothing"
    torch.testing.assert_close(back, features, rtol=0, atol=1e-5 * float(features.abs().max()))


def test_the_body_keeps_volumes():
    """Additive couplings and an orthonormal transform: the determinant of the derivative is 1 or -1."""
    torch.manual_seed(0)
    body = InvertibleBody(4, levels=2, blocks=2).double().eval()
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    derivative = torch.autograd.functional.jacobian(lambda flat: body(flat.view(1, 4, 4, 4)).flatten(), x.flatten())
    assert torch.linalg.det(derivative).abs().item() == pytest.approx(1.0, abs=1e-10)
    singular = torch.linalg.svdvals(derivative)
    assert singular.max() > 1.1, "the body is a rotation only"


def test_kernels_have_spectral_norm_one():
    torch.manual_seed(0)
    body = InvertibleBody(8, levels=2, blocks=1)
    with torch.no_grad():
        for weight in body.parameters():
            weight.mul_(7.0)
        for _ in range(50):  # power iterations
            body(torch.randn(1, 8, 8, 8))
    body.eval()
    kernels = [m.weight.detach().flatten(1) for m in body.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) == 16
    for kernel in kernels:
        assert np.linalg.svd(kernel.numpy())[1][0] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("coarseness", [1, 2])
def test_features_made_of_a_map_lead_to_it_and_are_consistent(pairs, coarseness):
    torch.manual_seed(0)
    net = InvertibleUNet(OPENFWI, **SMALL, coarseness=coarseness).eval().net
    maps = normalise_velocity(pairs[1])
    with torch.no_grad():
        features = net.features_of(maps)
        kept = [features, *net.body.descend(features)]
        torch.testing.assert_close(net.decode(kept), maps, rtol=0, atol=1e-5)
        assert net.inconsistency(kept, maps).max() < 1e-5
        rms = features.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        other = features + 0.1 * rms * torch.randn_like(features)
        found = net.inconsistency([other], maps)
    torch.testing.assert_close(found, torch.full_like(found, 0.1), rtol=0.1, atol=0)


def test_training_makes_map_and_features_the_same_thing(pairs):
    gathers, velocity = pairs
    torch.manual_seed(0)
    model = InvertibleUNet(OPENFWI, **SMALL)
    model.transform.fit(model.transform.mean_squares(gathers).mean(dim=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for _ in range(30):
        losses = head_losses(model.answer(gathers), {"velocity": velocity})
        optimizer.zero_grad()
        losses["inverse"].backward()
        optimizer.step()
        values.append(losses["inverse"].item())
    assert values[-1] < 0.7 * values[0]


def test_a_prediction_says_how_consistent_it_is(pairs):
    torch.manual_seed(0)
    model = InvertibleUNet(OPENFWI, **SMALL, uncertainty_head=True).eval()
    answer = model.answer(pairs[0])
    assert answer.inconsistency.shape == (4,)
    features = model.net.encode(model.read(pairs[0]))
    back = model.net.features_of(model.net.decode(features))
    expected = (features[0] - back).flatten(1).norm(dim=1) / features[0].flatten(1).norm(dim=1)
    torch.testing.assert_close(answer.inconsistency, expected)


def test_a_line_of_another_width():
    survey = Survey.surface(100, depth=50, shots=3, samples=600)
    assert InvertibleUNet(survey, **SMALL)(torch.randn(2, *survey.gathers_shape)).shape == (2, 1, 50, 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30}, "model.width must be a multiple of 4 and at least 4, got 30: take 32"),
        ({"width": 4, "uncertainty_head": True}, "at least 8, got 4: take 8"),
        ({"levels": 0}, "model.levels must be at least 1, got 0"),
        ({"coarseness": 3}, "model.coarseness must be 1 or 2, got 3"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        InvertibleUNet(OPENFWI, **settings)
