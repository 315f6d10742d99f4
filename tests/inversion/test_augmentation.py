"""Members of test-time augmentation against what the wave equation says of them."""

import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.inversion import State
from fwi_lightning.inversion.augmentation import Augmentation, mirror, rescale, shifted, turn
from fwi_lightning.models import Answer
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

SURVEY = Survey(grid=(24, 30), samples=300, shot_columns=(0, 14, 29), receiver_columns=tuple(range(30)), sponge=30)


@pytest.fixture(scope="module")
def ground() -> torch.Tensor:
    velocity = torch.full((1, 1, *SURVEY.grid), 2000.0)
    velocity[..., 8:, :] = 2600
    velocity[..., 15:, :12] = 3300
    return velocity


@pytest.fixture(scope="module")
def gathers(ground) -> torch.Tensor:
    return simulate(ground[:, 0], SURVEY)


def test_a_mirrored_record_is_that_of_the_mirrored_ground(ground, gathers):
    truth = simulate(ground[:, 0].flip(-1), SURVEY)
    assert SURVEY.grid[1] - 1 - 14 not in SURVEY.shot_columns
    off = {kind: float(relative_rms(truth, mirror(gathers, ground, SURVEY, kind))) for kind in ("recorded", "simulate")}
    assert off["simulate"] < 1e-5
    assert off["recorded"] > 0.1
    # Over a map that is not quite the ground the difference of two shots errs less than a shot.
    near = ground + 60
    off = {kind: float(relative_rms(truth, mirror(gathers, near, SURVEY, kind))) for kind in ("difference", "simulate")}
    assert off["difference"] < 0.6 * off["simulate"]


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_compressed_time_axis_is_a_faster_ground(ground, gathers, factor):
    truth = simulate(factor * ground[:, 0], SURVEY)
    found = rescale(gathers, SURVEY, factor)
    length = int(SURVEY.samples / max(factor, 1)) - 20  # beyond it nothing was recorded
    off = relative_rms(truth[:, :, :length], found[:, :, :length])
    before = relative_rms(truth[:, :, :length], gathers[:, :, :length])
    assert float(off) < 0.05 < 3 * 0.05 < float(before)


def test_turning_there_and_back_leaves_a_smooth_map():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    smooth = (2000 + 20 * rows + 5 * columns)[None, None]
    there = turn(smooth, 10, "bilinear")
    assert float((there - smooth).abs().max()) > 50
    back = turn(there, -10, "bilinear")[..., 15:25, 20:40]
    assert float((back - smooth[..., 15:25, 20:40]).abs().max()) < 2
    # A right angle of a square map: no cell is lost.
    square = torch.rand(1, 1, 5, 5)
    torch.testing.assert_close(turn(square, 90, "nearest"), square.rot90(1, (-2, -1)))


def state(gathers, network) -> State:
    answer = network(gathers)
    return State(gathers, answer.velocity, SURVEY, network, answer)


def test_a_shift_moves_the_record(gathers):
    seen = []

    def network(records):
        seen.append(records)
        return Answer(torch.full((len(records), 1, *SURVEY.grid), 2000.0))

    batch = state(gathers, network)
    for samples in (3, -3):
        shifted(batch, samples)
    torch.testing.assert_close(seen[1][:, :, 3:], gathers[:, :, :-3])
    assert not seen[1][:, :, :3].any()
    torch.testing.assert_close(seen[2][:, :, :-3], gathers[:, :, 3:])


class Sided:
    """A network that errs to the other side in the mirrored record, and by the size of a record's gain."""

    def __init__(self, ground, loudest):
        self.ground, self.loudest = ground, loudest

    def __call__(self, gathers):
        left = (gathers[:, 0, :, 0].abs().max() - gathers[:, -1, :, -1].abs().max()).sign()
        gain = gathers.abs().max() / self.loudest
        tilt = torch.linspace(-100, 100, SURVEY.grid[1])
        ground = self.ground if left > 0 else self.ground.flip(-1)
        return Answer(ground + tilt + 50 * (gain - 1))


def test_members_are_averaged_and_their_spread_is_kept(gathers, ground):
    louder = gathers.clone()
    louder[:, 0] *= 1.5  # so that the network knows left from right
    network = Sided(ground, louder.abs().max())
    batch = state(louder, network)
    step = Augmentation(flip=True, missing_shot="recorded", gains=[2.0])
    assert step.parts == 2
    step.run(batch, 0)
    torch.testing.assert_close(batch.velocity, ground, atol=1e-2, rtol=0)
    tilt = torch.linspace(-100, 100, SURVEY.grid[1]).abs().expand(SURVEY.grid)
    torch.testing.assert_close(batch.maps["spread"][0, 0], tilt, atol=1e-2, rtol=0)
    step.run(batch, 1)
    plain, mirrored, loud = (network(louder).velocity, 2 * ground - network(louder).velocity, network(louder).velocity)
    torch.testing.assert_close(batch.velocity, (plain + mirrored + loud + 50) / 3, atol=1e-2, rtol=0)
    assert batch.columns["members"] == [3]
    assert "members" not in batch.extras


def test_changes_are_asked_both_ways(gathers, ground):
    network = Sided(ground, gathers.abs().max())
    louder = gathers.clone()
    louder[:, 0] *= 1.5
    batch = state(louder, network)
    step = Augmentation(flip=False, missing_shot="recorded", gains=[2.0], both_ways=True)
    assert step.parts == 2
    tilt = torch.linspace(-100, 100, SURVEY.grid[1]).expand(SURVEY.grid)
    loud = network(2 * louder).velocity
    torch.testing.assert_close(step.members[0](batch), loud, atol=1e-2, rtol=0)
    torch.testing.assert_close(step.members[1](batch), loud - 2 * tilt, atol=1e-2, rtol=0)


def test_the_error_on_the_simulated_answer_is_taken_off(gathers, ground):
    """A network that is off by the same everywhere; turning keeps it the same."""
    truths = [ground]

    def network(records):
        return Answer(truths[-1] + 80)

    batch = state(gathers, network)
    truths.append(batch.velocity)  # it knows the ground of what is simulated next
    Augmentation(flip=False, rotations=[0]).run(batch, 0)
    torch.testing.assert_close(batch.velocity, ground + 40, atol=1e-2, rtol=0)  # mean of 80 and 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": False}, "inference.tta has no member"),
        ({"missing_shot": "guess"}, "missing_shot must be difference or simulate or recorded"),
        ({"average": "mode"}, "average must be mean or median"),
        ({"scalings": [2.0]}, "scalings must be from 0.8 to 1.25, got 2"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**settings)
