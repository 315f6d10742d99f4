"""The velocity at the shots as an input or as a constraint, of every model that can be chosen."""

import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.models import ResidualUNet
from fwi_lightning.models.source import KnownVelocity
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey
from tests.models.catalogue import NAMES, make

SHOTS = [0, 17, 34, 52, 69]


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.from_numpy(draw("Style_B", 2, seed=3)[:, 0])


@pytest.fixture(scope="module")
def gathers(maps) -> torch.Tensor:
    return simulate(maps)


@pytest.fixture(scope="module")
def filtered(gathers) -> torch.Tensor:
    bands = butter(4, [3, 30], "bandpass", fs=1000, output="sos")
    return torch.from_numpy(sosfiltfilt(bands, gathers.numpy(), axis=2).copy()).float()


@pytest.mark.parametrize("name", NAMES)
def test_a_constraint_holds_at_the_shots_and_nowhere_else(name, maps, gathers, filtered):
    free, bound = (make(name, f"model.source_velocity={use}").eval() for use in ("none", "constraint"))
    before, after = free.predict(gathers), bound.predict(gathers)
    assert (after[:, 0, 1, SHOTS] - maps[:, 1, SHOTS]).abs().max() < 0.01
    assert (before[:, 0, 1, SHOTS] - maps[:, 1, SHOTS]).abs().max() > 1
    changed = (before != after).nonzero()
    assert set(map(tuple, changed[:, 2:].tolist())) == {(1, column) for column in SHOTS}
    assert torch.equal(bound.predict(filtered), free.predict(filtered))


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_is_one_more_input_and_all_are_learnt_from(name, gathers):
    free, wider = (make(name, f"model.source_velocity={use}") for use in ("none", "channel"))
    read = [model.known.widen(model.transform(gathers), gathers) for model in (free, wider)]
    assert [inputs.shape[1] for inputs in read] == [5, 6]
    inputs = read[1].requires_grad_()
    wider.transform.forward = lambda _: inputs
    wider.known.widen = lambda x, _: x
    (wider(gathers) / 1000).square().mean().backward()
    assert inputs.grad[:, 5].abs().sum() > 0


def test_the_channel_runs_through_the_velocities_at_the_shots(maps, gathers, filtered):
    known = KnownVelocity(OPENFWI, "channel")
    inputs = torch.randn(2, 5, 250, 70)
    wide = known.widen(inputs, gathers)
    assert wide.shape == (2, 6, 250, 70)
    assert torch.equal(wide[:, :5], inputs)
    channel = wide[:, 5] * 1500 + 3000
    assert (channel == channel[:, :1]).all(), "it is the same at all times"
    assert (channel[:, 0, SHOTS] - maps[:, 1, SHOTS]).abs().max() < 0.01
    ends = maps[:, 1, 17], maps[:, 1, 34]
    assert (channel[:, 0, 20] - (14 * ends[0] + 3 * ends[1]) / 17).abs().max() < 0.01
    assert not known.widen(inputs, filtered)[:, 5].any()


def test_shots_in_any_order_and_beyond_the_receivers():
    survey = Survey(grid=(30, 40), shot_columns=(30, 10), receiver_columns=tuple(range(5, 36)), samples=4, sponge=5)
    velocity = torch.linspace(2000, 3000, 40).expand(30, 40)
    channel = KnownVelocity(survey, "channel").widen(torch.zeros(1, 2, 1, 31), simulate(velocity[None], survey))
    line = channel[0, 2, 0] * 1500 + 3000
    assert (line - velocity[1, 5:36].clamp(velocity[1, 10], velocity[1, 30])).abs().max() < 0.01


def test_one_shot_that_cannot_be_read_leaves_the_others(maps, gathers):
    gathers = gathers.clone()
    gathers[:, 1] *= 2
    before = torch.full((2, 1, 70, 70), 2500.0)
    after = KnownVelocity(OPENFWI, "constraint").constrain(before, gathers)
    assert (after[:, 0, 1, 17] == 2500).all()
    others = [0, 34, 52, 69]
    assert (after[:, 0, 1, others] - maps[:, 1, others]).abs().max() < 0.01
    assert (before == 2500).all(), "the map given is left alone"


@pytest.mark.parametrize("use", ["channel", "constraint"])
def test_half_precision_does_not_round_it(use, maps, gathers):
    model = ResidualUNet(OPENFWI, width=4, source_velocity=use).train()
    seen = []
    model.net.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(gathers)
    known = seen[0][:, 5, 0, SHOTS] * 1500 + 3000 if use == "channel" else velocity[:, 0, 1, SHOTS]
    assert (known - maps[:, 1, SHOTS]).abs().max() < 0.01
    velocity.mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_weights_of_a_model_that_does_not_use_it_are_those_of_before():
    """Checkpoints from before the setting have neither its key nor a buffer of its own."""
    assert not [key for key in ResidualUNet(OPENFWI, width=4).state_dict() if key.startswith("known")]
    assert not [key for key in ResidualUNet(OPENFWI, width=4, source_velocity="channel").state_dict() if "known" in key]


def test_an_unknown_use_is_refused():
    with pytest.raises(UserError, match=r"model.source_velocity must be none, channel or constraint, got 'input'"):
        ResidualUNet(OPENFWI, source_velocity="input")
