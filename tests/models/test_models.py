import numpy as np
import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.models import InputTransform, InversionNet, ResidualUNet, UNet
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey


@pytest.mark.parametrize("width", [70, 100, 190])
def test_shallow_unet_fits_its_survey(width):
    survey = Survey.surface(width, depth=50, shots=3, samples=600)
    assert ResidualUNet(survey, width=4)(torch.randn(2, *survey.gathers_shape)).shape == (2, 1, 50, width)


def test_inversionnet_has_the_published_layers():
    """Kernels as github lanl/OpenFWI lists them: inputs, outputs, kernel; each with its bias and a batch norm."""
    layers = [(5, 32, 7), (32, 64, 3), (64, 64, 3), (64, 64, 3), (64, 64, 3), (64, 128, 3), (128, 128, 3)]
    layers += [(128, 128, 9), (128, 128, 9), (128, 256, 9), (256, 256, 9), (256, 256, 9), (256, 256, 9)]
    layers += [(256, 512, 8 * 9), (512, 512, 25), (512, 512, 9), (512, 256, 16), (256, 256, 9), (256, 128, 16)]
    layers += [(128, 128, 9), (128, 64, 16), (64, 64, 9), (64, 32, 16), (32, 32, 9), (32, 1, 9)]
    expected = sum(inputs * outputs * kernel + 3 * outputs for inputs, outputs, kernel in layers)
    assert sum(p.numel() for p in InversionNet(OPENFWI).parameters()) == expected


def test_predict_does_not_depend_on_batches_and_leaves_the_mode_alone():
    torch.manual_seed(0)
    model = ResidualUNet(OPENFWI, width=4)
    gathers = np.random.default_rng(0).normal(size=(5, 5, 1000, 70)).astype(np.float32)
    whole = model.predict(gathers, batch_size=5)
    np.testing.assert_allclose(model.predict(gathers, batch_size=2), whole, rtol=1e-5)
    np.testing.assert_allclose(model.predict(gathers[3]), whole[3], rtol=1e-5)
    assert model.training


def test_a_whole_answer_is_predicted_batch_by_batch_and_each_sample_once():
    torch.manual_seed(0)
    model = ResidualUNet(OPENFWI, width=4, uncertainty_head=True, family_head=True, families=["a", "b", "c"])
    gathers = torch.randn(3, 5, 1000, 70)
    read = []
    model.net.stem.register_forward_pre_hook(lambda _, inputs: read.append(len(inputs[0])))
    answer = model.predict_answer(gathers, batch_size=2)
    assert read == [2, 1]
    assert model.training
    with torch.no_grad():
        expected = model.eval().answer(gathers)
    assert [value.shape[0] for value in answer if value is not None] == [3, 3, 3]
    for name, value in answer._asdict().items():
        torch.testing.assert_close(value, getattr(expected, name), rtol=1e-4, atol=1e-4)
        assert value is None or not value.requires_grad


def test_a_prediction_may_start_an_inversion():
    prediction = ResidualUNet(OPENFWI, width=4).predict(torch.zeros(1, *OPENFWI.gathers_shape))
    prediction.requires_grad_().sum().backward()
    assert prediction.grad is not None


@pytest.mark.parametrize("shape", [(5, 1000, 60), (4, 1000, 70), (1000, 70), (1, 1, 5, 1000, 70)])
def test_predict_names_the_shape_found_and_those_it_reads(shape):
    with pytest.raises(UserError, match=r"gathers have shape .*; this model reads \(5, 1000, 70\)"):
        ResidualUNet(OPENFWI, width=4).predict(np.zeros(shape, np.float32))


def test_the_transform_has_unit_scale_on_what_it_was_fitted_to_and_keeps_the_sign():
    maps = np.concatenate([draw("FlatVel_A", 2, seed=0), draw("CurveFault_B", 2, seed=0)])[:, 0]
    gathers = simulate(torch.from_numpy(maps))
    transform = InputTransform(OPENFWI)
    transform.fit(transform.mean_squares(gathers).mean(dim=0))
    read = transform(gathers)
    assert read.shape == (4, 5, 250, 70)
    assert torch.equal(read.sign(), gathers[:, :, ::4].sign())
    rms = read.square().mean(dim=(0, 1, 3)).sqrt().numpy()
    assert rms.max() == pytest.approx(1.0, abs=1e-4)
    assert (rms > 0.999).mean() > 0.5, "late arrivals do not count as much as early ones"


@pytest.mark.parametrize(
    ("family", "least", "most"),
    [("FlatVel_A", -26.95, 52.77), ("CurveFault_A", -26.48, 52.32), ("Style_B", -23.76, 46.01), (None, -29.04, 57.03)],
)
def test_official_amplitudes_are_those_of_openfwi(family, least, most):
    """Its own two steps, LogTransform(k=1) and MinMaxNormalize, in its own order of operations."""
    gathers = np.random.default_rng(0).uniform(least, most, (2, *OPENFWI.gathers_shape)).astype(np.float32)
    gathers[0, 0, 0, :2] = least, most

    def log(data):
        return np.log1p(np.abs(1 * data) + 0) * np.sign(data)

    normalised = (log(gathers.astype(np.float64)) - log(least)) / (log(most) - log(least))
    expected = (normalised - 0.5) * 2
    transform = InputTransform(OPENFWI, 0.001, "official", family)
    transform.fit(torch.rand(1000))  # takes nothing from data
    found = transform(torch.from_numpy(gathers)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found[0, 0, 0, :2], [-1, 1], atol=1e-6)
    again = InputTransform(OPENFWI, 0.001, "official", family)
    again.load_state_dict(transform.state_dict())
    assert torch.equal(again(torch.from_numpy(gathers)), torch.from_numpy(found))


@pytest.mark.parametrize(
    ("amplitudes", "family", "message"),
    [
        ("official", "CurveFault_C", r"official_family must be null or one of FlatVel_A.*got 'CurveFault_C'"),
        ("log1p", "CurveFault_A", r"official_family=CurveFault_A is for model.amplitudes=official, and it is log1p"),
        ("log", None, r"model.amplitudes must be log1p, official, trace or raw, got 'log'"),
    ],
)
def test_amplitudes_that_do_not_exist_are_refused(amplitudes, family, message):
    with pytest.raises(UserError, match=message):
        InputTransform(OPENFWI, amplitudes=amplitudes, official_family=family)


def test_four_milliseconds_lose_nothing_of_the_record():
    """What every fourth sample leaves out comes back by band-limited interpolation."""
    record = simulate(torch.from_numpy(draw("CurveFault_B", 1, seed=1)[0, 0]))[:, :996].double().numpy()
    window = np.hanning(996)[:, None]  # a record that ends where it begins can be periodic
    record = record * window
    spectrum = np.fft.rfft(record[:, ::4], axis=1)
    full = np.zeros((5, 499, 70), complex)
    full[:, : spectrum.shape[1]] = spectrum
    back = np.fft.irfft(full, n=996, axis=1) * 4
    assert np.sqrt(((back - record) ** 2).mean() / (record**2).mean()) < 1e-3


def test_a_time_step_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"must be a multiple of the survey's 0.001 s, got 0.0025 s"):
        InputTransform(OPENFWI, 0.0025)


def test_a_network_in_float16_answers_nearly_the_same_in_float32():
    torch.manual_seed(0)
    model = ResidualUNet(OPENFWI, width=4, projector="spectral", uncertainty_head=True).eval()
    gathers = torch.randn(1, 5, 1000, 70)
    exact = model.predict(gathers)
    half = model.lower(torch.float16).predict(gathers)
    assert next(model.net.parameters()).dtype == torch.float16
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualUNet(OPENFWI, levels=8, coarseness=1), r"levels=8 .* less than a cell .* take at most 7"),
        (lambda: ResidualUNet(OPENFWI, levels=7), r"levels=7 with model.coarseness=2 .* take at most 6"),
        (lambda: ResidualUNet(OPENFWI, levels=0), "model.levels must be at least 1, got 0"),
        (lambda: ResidualUNet(OPENFWI, coarseness=3), "model.coarseness must be 1 or 2, got 3"),
        (lambda: UNet(OPENFWI, width=0), "model.width must be at least 1, got 0"),
        (lambda: UNet(Survey.surface(70, depth=12)), r"the grid needs 16 cells each way, got \(12, 70\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_deepest_level_that_is_allowed_is_one_cell():
    assert ResidualUNet(OPENFWI, width=1, levels=7, coarseness=1).predict(torch.zeros(5, 1000, 70)).shape == (1, 70, 70)
