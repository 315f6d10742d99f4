"""Augmentations change what they say and nothing else; gathers and map stay an exact pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_lightning.data.augment import Augmentation, Corruption, Crop, Flip, Physics, Sample
from fwi_lightning.data.training import Completion, TrainingSamples
from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import OPENFWI, Survey

SURVEY = Survey.surface(32, depth=30, shots=5, samples=150, sponge=30)
CLOSED = replace(SURVEY, shot_columns=(0, 8, 15, 16, 23, 31))  # its own mirror image
OFF = dict.fromkeys(("blend", "crop", "warp", "flip", "scale"), 0.0)


class Maps:
    """A source of a few drawn maps, recorded by simulation; families take turns."""

    def __init__(self, survey=SURVEY, count=4):
        halves = [draw(name, count, seed=5, shape=survey.grid) for name in ("CurveFault_B", "Style_A")]
        self.velocities = torch.from_numpy(np.stack(halves, 1).reshape(2 * count, 1, *survey.grid))
        self.gathers = simulate(self.velocities[:, 0], survey)

    def __len__(self):
        return len(self.velocities)

    def sample(self, epoch, index):
        gathers = self.gathers[index].clone()
        return Sample(gathers, torch.zeros(len(gathers), dtype=torch.bool), self.velocities[index], index % 2, index)

    def velocity(self, epoch, index):
        return self.velocities[index]

    def families(self, epoch):
        return np.arange(len(self)) % 2

    def neighbours(self, epoch, index):
        return np.arange(len(self))


@pytest.fixture(scope="module")
def maps():
    return Maps()


def sample_of(velocity, survey=SURVEY):
    velocity = torch.as_tensor(np.asarray(velocity, dtype=np.float32))[None]
    return Sample(torch.ones(survey.gathers_shape), torch.zeros(survey.shots, dtype=torch.bool), velocity, 3, 9)


def changed(augmentation, velocity, seed=0, partner=None):
    """The map that an augmentation makes of one, as an array."""
    after = augmentation.change(sample_of(velocity, augmentation.survey), np.random.default_rng(seed), partner)
    return after.velocity[0].numpy()


def batch(source, augmentations, survey=SURVEY, epoch=0, seed=0):
    samples = TrainingSamples(source, augmentations, seed)
    return Completion(survey, augmentations).collate([samples[epoch, index] for index in range(len(source))])


def assert_close(found, expected):
    """Equal to 1e-5 of the rms of the records: what float32 of another order of sums gives."""
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.square().mean().sqrt()))


class TestFlip:
    @pytest.mark.parametrize("survey", [SURVEY, CLOSED, replace(OPENFWI, samples=300)], ids=["5", "6", "openfwi"])
    def test_the_flip_of_a_record_is_the_record_of_the_flip(self, survey):
        source = Maps(survey, count=1)
        found = batch(source, [Flip(survey, probability=1)], survey)
        assert torch.equal(found["velocity"], source.velocities.flip(-1))
        assert_close(found["gathers"], simulate(source.velocities.flip(-1)[:, 0], survey))

    def test_only_the_shot_without_a_mirror_image_is_simulated(self, maps):
        item = TrainingSamples(maps, [Flip(SURVEY, 1)], 0)[0, 0]
        assert item["missing"].tolist() == [False, False, True, False, False]
        item = TrainingSamples(Maps(CLOSED, 1), [Flip(CLOSED, 1)], 0)[0, 0]
        assert not item["missing"].any()

    @pytest.mark.parametrize("missing_shot", ["simulate", "silence"])
    def test_illumination_is_mirrored_with_the_map(self, maps, missing_shot):
        sample = replace(maps.sample(0, 0), illumination=illuminate(maps.velocities[0], SURVEY)[1])
        found = Flip(SURVEY, 1, missing_shot).change(sample, np.random.default_rng(0), None)
        mirrored = replace(SURVEY, shot_columns=tuple(31 - column for column in SURVEY.shot_columns))
        expected = illuminate(found.velocity, mirrored)[1]
        torch.testing.assert_close(found.illumination, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))

    def test_or_silenced(self, maps):
        found = batch(maps, [Flip(SURVEY, 1, missing_shot="silence")])["gathers"]
        whole = batch(maps, [Flip(SURVEY, 1)])["gathers"]
        assert torch.equal(found[:, 2], torch.zeros_like(found[:, 2]))
        kept = [0, 1, 3, 4]
        assert torch.equal(found[:, kept], whole[:, kept])

    def test_nothing_is_silenced_in_a_sample_that_is_simulated_anyway(self, maps):
        both = [Physics(SURVEY, **OFF | {"crop": 1}, crop_size=(0.6, 0.8)), Flip(SURVEY, 1, missing_shot="silence")]
        found = batch(maps, both)
        assert_close(found["gathers"], simulate(found["velocity"][:, 0], SURVEY))

    def test_receivers_of_one_side_are_refused(self):
        with pytest.raises(UserError, match=r"mirror image of each, but that of column 3, 28, has none"):
            Flip(replace(SURVEY, receiver_columns=(3, 4, 27)))


class TestPhysics:
    def test_new_maps_are_simulated_and_untouched_ones_keep_their_records(self, maps):
        found = batch(maps, [Physics(SURVEY)])
        same = (found["velocity"] == maps.velocities).flatten(1).all(1)
        assert same.any()
        assert not same.all()
        assert torch.equal(found["gathers"][same], maps.gathers[same])
        assert_close(found["gathers"], simulate(found["velocity"][:, 0], SURVEY))
        assert found["family"].tolist() == [0, 1] * 4
        assert found["index"].tolist() == list(range(8))

    def test_probabilities_of_zero_change_nothing(self, maps):
        samples = TrainingSamples(maps, [Physics(SURVEY, **OFF)], 0)
        assert all(not samples[0, index]["missing"].any() for index in range(8))

    @pytest.mark.parametrize("operation", ["crop", "warp"])
    def test_no_velocity_between_two_layers_appears(self, operation):
        velocity = draw("CurveFault_B", 1, 3, shape=SURVEY.grid)[0, 0]
        results = [changed(Physics(SURVEY, **OFF | {operation: 1}), velocity, seed) for seed in range(20)]
        assert all(set(np.unique(result)) <= set(np.unique(velocity)) for result in results)
        assert sum(np.array_equal(result, velocity) for result in results) <= 2

    def test_a_crop_is_a_window_inside_the_map(self):
        rows, columns = np.divmod(np.arange(30 * 32).reshape(30, 32), 32)
        physics = Physics(SURVEY, **OFF | {"crop": 1}, crop_size=(0.5, 0.5))
        tops = set()
        for seed in range(30):
            cells = changed(physics, 1500.0 + 32 * rows + columns, seed).astype(int) - 1500
            top, bottom, left, right = *(cells // 32)[[0, -1], 0], *(cells % 32)[0, [0, -1]]
            assert bottom - top in (14, 15)  # half of 30 rows, whole cells or parts of one more
            assert right - left in (15, 16)
            # a row is stretched to two, whatever its place
            assert np.abs((cells // 32)[:, 0] - np.linspace(top, bottom, 30)).max() <= 1
            tops.add(int(top))
        assert min(tops) <= 2
        assert max(tops) >= 12

    def test_a_rotated_boundary_is_straight_and_goes_through_the_middle(self):
        survey = Survey.surface(80, depth=80, samples=20)
        upright = np.where(np.arange(80) < 40, 2000.0, 3000.0) * np.ones((80, 1))
        physics = Physics(survey, **OFF | {"warp": 1}, rotation=20, scaling=(1, 1), shear=0)
        slopes = []
        for seed in range(20):
            place = (changed(physics, upright, seed) == 2000).sum(1)  # columns left of the boundary, per row
            slope, start = np.polyfit(np.arange(0.5, 80), place, 1)
            assert np.abs(place - slope * np.arange(0.5, 80) - start).max() < 1
            assert start + 40 * slope == pytest.approx(40, abs=0.6)
            slopes.append(slope)
        steepest = np.tan(np.radians(20))
        assert -steepest <= min(slopes) < -0.2
        assert 0.2 < max(slopes) <= steepest + 0.01

    def test_scaling_by_two_doubles_thicknesses_about_the_middle(self):
        layers = np.repeat([1600.0, 2100.0, 2600.0, 3100.0, 3600.0], 6)[:, None] * np.ones(32)
        physics = Physics(SURVEY, **OFF | {"warp": 1}, rotation=0, scaling=(2, 2), shear=0)
        expected = np.repeat([2100.0, 2600.0, 3100.0], [9, 12, 9])
        assert np.array_equal(changed(physics, layers), expected[:, None] * np.ones(32))

    def test_shear_keeps_depths_and_shifts_columns_with_depth(self):
        physics = Physics(SURVEY, **OFF | {"warp": 1}, rotation=0, scaling=(1, 1), shear=0.5)
        upright = np.where(np.arange(32) < 16, 2000.0, 3000.0) * np.ones((30, 1))
        flat = upright[:, :1] + np.arange(30)[:, None] * np.ones(32)
        place = (changed(physics, upright, 4) == 2000).sum(1)
        assert abs(np.polyfit(np.arange(30), place, 1)[0]) > 0.1
        assert np.array_equal(changed(physics, flat, 4), flat)

    def test_a_blend_is_a_mean_of_two_with_a_weight_of_its_range(self):
        first, second = (draw(name, 1, 1, shape=SURVEY.grid)[0] for name in ("CurveVel_B", "Style_B"))
        physics = Physics(SURVEY, **OFF | {"blend": 1}, blend_weight=(0.2, 0.4), same_family=0.25)
        asked, weights = [], []
        for seed in range(60):
            found = changed(
                physics, first[0], seed, lambda _, same: asked.append(same) or torch.from_numpy(second)
            ).astype(float)
            difference = (second - first)[0].astype(float)
            weight = float(((found - first[0]) * difference).sum() / (difference**2).sum())
            assert np.allclose(found, first[0] + weight * difference, atol=1e-2)
            weights.append(weight)
        assert 0.2 <= min(weights) < 0.25
        assert 0.35 < max(weights) <= 0.4 + 1e-6
        assert 5 < sum(asked) < 25

    def test_partners_are_of_the_family_asked_for(self, maps):
        seen = []
        spy = Augmentation(SURVEY)
        spy.change = lambda sample, generator, partner: (
            seen.append([(partner(generator, same), same) for same in (True, False)]) or sample
        )
        samples = TrainingSamples(maps, [spy], 0)
        for index in range(8):
            samples[0, index]
            for velocity, same in seen[-1]:
                (found,) = (n for n, known in enumerate(maps.velocities) if torch.equal(known, velocity))
                assert found != index
                assert (found % 2 == index % 2) == same

    def test_scaled_velocities_keep_their_ratios_and_their_bounds(self):
        physics = Physics(SURVEY, **OFF | {"scale": 1}, scale_factor=(0.5, 2))
        velocity = np.linspace(1800, 3600, 30)[:, None] * np.ones(32)
        factors = []
        for seed in range(50):
            ratio = changed(physics, velocity, seed) / velocity
            assert np.ptp(ratio) < 1e-6
            factors.append(ratio[0, 0])
        assert 1500 / 1800 <= min(factors) < 0.9
        assert 1.2 < max(factors) <= 1.25 + 1e-6
        full = np.linspace(1500, 4500, 30)[:, None] * np.ones(32)
        assert np.allclose(changed(physics, full), full)  # there is no room

    def test_a_map_that_the_time_step_cannot_carry_is_not_made(self):
        survey = replace(SURVEY, time_step=0.00127)
        velocity = np.where(np.arange(30) < 15, 1500.0, 4500.0)[:, None] * np.ones(32)
        simulate(torch.from_numpy(velocity).float(), survey)  # the sponge is as strong as the slowest velocity
        with pytest.raises(UserError, match="largest stable"):
            simulate(torch.full((30, 32), 4500.0), survey)
        physics = Physics(survey, **OFF | {"crop": 1}, crop_size=(0.3, 0.3))
        results = [changed(physics, velocity, seed) for seed in range(30)]
        assert all(result.min() == 1500 for result in results)  # windows below the boundary are given up
        assert any(not np.array_equal(result, velocity) for result in results)


class TestCorruption:
    def corrupt(self, seed=0, **settings):
        off = {"gain": 0, "noise": 0, "dead": 0}
        gathers = torch.randn(SURVEY.gathers_shape, generator=torch.Generator().manual_seed(1))
        gathers *= torch.tensor([1.0, 10, 0.1, 0, 3])[:, None, None]
        found = gathers.clone()
        Corruption(SURVEY, **off | settings).corrupt(found, seed)
        return gathers, found

    def test_the_map_stays_and_so_does_everything_at_probability_zero(self, maps):
        before, after = self.corrupt()
        assert torch.equal(before, after)
        found = batch(maps, [Corruption(SURVEY, gain=1, noise=1, dead=1)])
        assert torch.equal(found["velocity"], maps.velocities)
        assert not any(torch.equal(one, other) for one, other in zip(found["gathers"], maps.gathers, strict=True))

    def test_gain_is_one_factor_a_shot(self):
        before, after = self.corrupt(gain=1, gain_range=(0.5, 2))
        shots = [0, 1, 2, 4]
        factors = (after[shots] / before[shots]).flatten(1)
        assert torch.allclose(factors, factors[:, :1], rtol=1e-5)
        assert len(factors[:, 0].unique()) == 4
        assert 0.5 <= factors.min() <= factors.max() <= 2

    def test_noise_is_relative_to_each_shot(self):
        before, after = self.corrupt(noise=1, noise_level=(0.1, 0.1))
        level = (after - before).square().mean((1, 2)).sqrt() / before.square().mean((1, 2)).sqrt()
        assert torch.allclose(level[[0, 1, 2, 4]], torch.tensor(0.1), rtol=0.05)
        assert torch.equal(after[3], before[3])  # a silent shot stays silent

    def test_dead_traces_are_zero_and_the_others_untouched(self):
        before, after = self.corrupt(dead=1, dead_traces=(0.3, 0.3))
        dead = (after == 0).all(1)[[0, 1, 2, 4]]
        assert 0.15 < dead.float().mean() < 0.45
        assert torch.equal(after[[0, 1, 2, 4]], before[[0, 1, 2, 4]] * ~dead[:, None])

    def test_a_late_shot_is_its_record_moved_down_by_whole_samples(self):
        before, after = self.corrupt(shift=1, shift_range=(0.003, 0.003))
        assert torch.equal(after[:, 3:], before[:, :-3])
        assert not after[:, :3].any()
        before, after = self.corrupt(shift=1, shift_range=(-0.0021, -0.0019))
        assert torch.equal(after[:, :-2], before[:, 2:])
        assert not after[:, -2:].any()

    def test_each_shot_has_a_shift_of_its_own(self):
        moved = set()
        for seed in range(4):
            before, after = self.corrupt(seed, shift=1, shift_range=(-0.002, 0.002))
            for shot in (0, 1, 2, 4):
                matches = [k for k in range(-2, 3) if torch.equal(after[shot, 5:-5], before[shot, 5 - k : 145 - k])]
                assert len(matches) == 1
                moved.add(matches[0])
        assert len(moved) > 2


class TestCrop:
    def crop(self, seed=0, **settings):
        before = torch.randn(SURVEY.gathers_shape, generator=torch.Generator().manual_seed(1))
        after = before.clone()
        Crop(SURVEY, **{"probability": 1, "width": (0.5, 0.5)} | settings).corrupt(after, seed)
        return before, after

    def test_outside_the_window_nothing_is_left(self):
        before, after = self.crop(padding="zero")
        kept = after.any(dim=1).all(dim=0)
        assert int(kept.sum()) == 16
        places = torch.nonzero(kept)[:, 0]
        assert int(places.max() - places.min()) == 15, "a window of neighbours"
        assert torch.equal(after[..., kept], before[..., kept])

    def test_outside_the_window_it_is_mirrored_at_its_edges(self):
        # numpy's own reflection, around the window that zeros show.
        _, zeros = self.crop(padding="zero")
        before, after = self.crop(padding="mirror")
        places = torch.nonzero(zeros.any(dim=1).all(dim=0))[:, 0].tolist()
        window = before[..., places].numpy()
        margins = (places[0], 31 - places[-1])
        expected = np.pad(window, ((0, 0), (0, 0), margins), mode="reflect")
        assert np.array_equal(after.numpy(), expected)

    def test_windows_differ_and_none_is_cropped_at_probability_zero(self):
        windows = {
            tuple(torch.nonzero(self.crop(seed, padding="zero")[1].any(dim=1)[0])[:, 0].tolist()) for seed in range(9)
        }
        assert len(windows) > 3
        before, after = self.crop(probability=0)
        assert torch.equal(before, after)


class TestChance:
    ALL = (Physics(SURVEY), Flip(SURVEY), Corruption(SURVEY))

    def test_a_sample_depends_on_seed_epoch_and_index_alone(self, maps):
        first, again = (batch(maps, self.ALL, epoch=2, seed=7) for _ in range(2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        samples = TrainingSamples(maps, self.ALL, 7)
        alone = Completion(SURVEY, self.ALL).collate([samples[2, 5]])  # whatever was read before, and in what batch
        assert torch.equal(alone["gathers"][0], first["gathers"][5])
        for other in (batch(maps, self.ALL, epoch=3, seed=7), batch(maps, self.ALL, epoch=2, seed=8)):
            assert not torch.equal(first["velocity"], other["velocity"])

    def test_one_augmentation_draws_the_same_whatever_the_others_are(self, maps):
        alone = batch(maps, [Physics(SURVEY)])
        joined = batch(maps, [Physics(SURVEY), Corruption(SURVEY)])
        assert torch.equal(alone["velocity"], joined["velocity"])


@pytest.mark.parametrize("kind", [Flip, Physics, Corruption, Crop])
def test_probabilities(kind):
    names = {Physics: [*OFF, "same_family"], Corruption: ["gain", "noise", "dead", "shift"]}.get(kind, ["probability"])
    for name in names:
        for value in (-0.1, 1.5, "often"):
            with pytest.raises(UserError, match=rf"{name} must be a probability from 0 .* got {value!r}"):
                kind(SURVEY, **{name: value})


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        (Flip, {"missing_shot": "guess"}, "missing_shot must be simulate or silence, got 'guess'"),
        (Physics, {"blend_weight": [0.1, 1.2]}, r"blend_weight must be \[lowest, highest\] within 0 to 1, got"),
        (Physics, {"crop_size": [0, 1]}, "crop_size must be .* within 0.0666667 to 1"),
        (Physics, {"crop_size": [0.9, 0.5]}, r"crop_size must be .*, got \[0.9, 0.5\]"),
        (Physics, {"crop_size": 0.5}, "crop_size must be .*, got 0.5"),
        (Physics, {"rotation": 90}, "rotation must be a number from 0 to 45, got 90"),
        (Physics, {"shear": "much"}, "shear must be a number from 0 to 1, got 'much'"),
        (Physics, {"scaling": [0, 1]}, "scaling must be"),
        (Physics, {"velocity_range": [1.5, 4.5]}, "velocity_range must be .* within 100 to 12000"),
        (Physics, {"scale_factor": [3.5, 4]}, r"would bring every map out of velocity_range=\[1500.0, 4500.0\] m/s"),
        (Corruption, {"gain_range": [0, 1]}, "gain_range must be"),
        (Corruption, {"noise_level": [-1, 0]}, "noise_level must be"),
        (Corruption, {"dead_traces": [0, 2]}, "dead_traces must be"),
        (Corruption, {"shift_range": [-9, 0]}, "shift_range must be .* within -0.15 to 0.15"),
        (Crop, {"width": [0, 1]}, "width must be"),
        (Crop, {"padding": "wrap"}, "padding must be mirror or zero, got 'wrap'"),
    ],
)
def test_settings_out_of_range(kind, setting, sentence):
    with pytest.raises(UserError, match=sentence):
        kind(SURVEY, **setting)
