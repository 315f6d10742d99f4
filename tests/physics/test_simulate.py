"""What holds for any simulator worth the name: shapes, symmetries, repeatability; and what it says of bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.physics.scheme import largest_stable_time_step, largest_stable_velocity
from fwi_lightning.survey import OPENFWI, Survey
from tests.physics.reference import relative_error, simulate_plainly

SMALL = Survey.surface(width=40, depth=30, shots=3, samples=300, sponge=30)


def layered(survey: Survey = SMALL, seed: int = 0) -> torch.Tensor:
    """A map with layers and noise."""
    depth, width = survey.grid
    random = np.random.default_rng(seed)
    layers = np.sort(random.uniform(1500, 4300, 5))[np.arange(depth) * 5 // depth][:, None]
    return torch.from_numpy((layers + random.uniform(0, 200, (depth, width))).astype(np.float32))


def with_pulses(early: float, late: float) -> Survey:
    """The small survey with a wavelet of two pulses, of these amplitudes."""

    class Pulses(Survey):
        def wavelet(self) -> NDArray[np.float64]:
            time = np.arange(self.samples)
            pulses = early * np.exp(-(((time - 40) / 12) ** 2)) + late * np.exp(-(((time - 90) / 15) ** 2))
            return np.asarray(pulses)

    return Pulses(**SMALL.to_dict())


class TestShapes:
    @pytest.mark.parametrize("batch", [(), (2,), (2, 1), (1, 3, 2)])
    def test_any_batch(self, batch: tuple[int, ...]) -> None:
        gathers = simulate(layered().expand(*batch, 30, 40), SMALL)
        assert gathers.shape == (*batch, 3, 300, 40)
        assert gathers.dtype == torch.float32

    def test_an_empty_batch(self) -> None:
        assert simulate(torch.empty(0, 1, 30, 40), SMALL).shape == (0, 1, 3, 300, 40)

    def test_the_default_survey_is_that_of_openfwi(self) -> None:
        assert simulate(torch.full((1, 70, 70), 3000.0)).shape == (1, 5, 1000, 70)

    def test_double_precision_in_gives_double_precision_out(self) -> None:
        exact = simulate(layered().double(), SMALL)
        expected = [simulate_plainly(layered().numpy(), SMALL, shot) for shot in range(SMALL.shots)]
        assert exact.dtype == torch.float64
        assert relative_error(exact.numpy(), np.stack(expected)) < 1e-12

    def test_a_transposed_map_and_a_gradient_that_nobody_wants(self) -> None:
        velocity = layered().T.contiguous().T.requires_grad_()
        with torch.no_grad():
            gathers = simulate(velocity, SMALL)
        assert torch.equal(gathers, simulate(layered(), SMALL))


class TestPhysics:
    def test_the_first_sample_reveals_the_velocity_at_the_shots(self) -> None:
        velocity, w0 = layered(), SMALL.wavelet()[0]
        first = simulate(velocity, SMALL)[:, 0]
        for shot, column in enumerate(SMALL.shot_columns):
            found = torch.sqrt(first[shot, column] / w0) / SMALL.time_step
            torch.testing.assert_close(found, velocity[1, column], rtol=1e-5, atol=0)
            first[shot, column] = 0
        assert not first.any()

    def test_reciprocity(self) -> None:
        # The step divided by alpha is symmetric, and the shot's factor (v dt)^2 divided by alpha is dx^2 anywhere:
        # the scheme itself is reciprocal, whatever the velocities at the two places.
        there = replace(SMALL, shot_columns=(5,), shot_row=1, receiver_columns=(33,), receiver_row=20)
        back = replace(SMALL, shot_columns=(33,), shot_row=20, receiver_columns=(5,), receiver_row=1)
        one, other = simulate(layered(), there)[0, :, 0], simulate(layered(), back)[0, :, 0]
        assert relative_error(one.numpy(), other.numpy()) < 1e-5

    def test_mirror_image(self) -> None:
        mirrored = replace(SMALL, shot_columns=tuple(39 - column for column in SMALL.shot_columns))
        image = simulate(layered().flip(-1), mirrored).flip(-1)
        assert relative_error(image.numpy(), simulate(layered(), SMALL).numpy()) < 1e-5

    def test_gathers_are_linear_in_the_wavelet(self) -> None:
        early, late, both = (simulate(layered(), with_pulses(*pulses)) for pulses in ((1, 0), (0, 1), (2, -3)))
        assert relative_error((2 * early - 3 * late).numpy(), both.numpy()) < 1e-5

    def test_nothing_arrives_faster_than_the_fastest_velocity(self) -> None:
        velocity = layered()
        gather = simulate(velocity, SMALL)[0, :, -1]
        earliest = int(39 * SMALL.spacing / float(velocity.max()) / SMALL.time_step)
        assert gather[: earliest - 5].abs().max() < 1e-4 * gather.abs().max()


class TestRepeatability:
    def test_the_same_bits_twice_in_any_batch_on_any_number_of_threads(self) -> None:
        maps = torch.stack([layered(seed=seed) for seed in range(3)])
        together = simulate(maps, SMALL)
        threads = numba.get_num_threads()
        try:
            for count in (1, threads):
                numba.set_num_threads(count)
                assert torch.equal(simulate(maps, SMALL), together)
                alone = torch.stack([simulate(velocity, SMALL) for velocity in maps.flip(0)]).flip(0)
                assert torch.equal(alone, together)
        finally:
            numba.set_num_threads(threads)

    @pytest.mark.parametrize("threads", ["1", "2"])
    def test_torch_keeps_its_threads_so_that_training_after_a_simulation_repeats(self, threads: str) -> None:
        words = (
            "import torch; from fwi_lightning.physics import simulate; from fwi_lightning.physics.wavefields import "
            "wavefields; from fwi_lightning.survey import Survey; before = torch.get_num_threads(); "
            "survey = Survey(samples=4); simulate(torch.full((70, 70), 2000.0), survey); print(before, "
            "torch.get_num_threads()); wavefields(torch.full((70, 70), 2000.0), survey); print(torch.get_num_threads())"
        )
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", words], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [threads] * 3

    def test_the_map_is_left_as_it_was(self) -> None:
        velocity = layered()
        simulate(velocity, SMALL)
        assert torch.equal(velocity, layered())

    def test_tiny_numbers_are_flushed_inside_only(self) -> None:
        simulate(layered(), SMALL)
        assert np.float32(1e-30) * np.float32(1e-10) > 0


class TestStability:
    @pytest.mark.parametrize("slowest", [1500.0, 4500.0])
    def test_the_field_stays_bounded_right_below_the_limit(self, slowest: float) -> None:
        survey = replace(SMALL, samples=4000)
        limit = largest_stable_velocity(survey, slowest)
        velocity = torch.full(survey.grid, limit * 0.999)
        velocity[20, 20] = slowest
        gathers = simulate(velocity, survey)
        assert gathers[:, 2000:].abs().max() < gathers.abs().max()

    def test_the_field_explodes_above_the_limit(self) -> None:
        survey = replace(SMALL, samples=1500)
        too_fast = np.full(survey.grid, 6200, np.float32)
        with np.errstate(all="ignore"):
            gather = simulate_plainly(too_fast, survey, 0)
        assert not np.abs(gather).max() < 1e6

    def test_the_limit_counts_what_the_sponge_takes_off(self) -> None:
        undamped = np.sqrt(3 / 8) * 10 / 0.001
        assert 0.97 * undamped < largest_stable_velocity(OPENFWI, 4500) < 0.98 * undamped
        assert largest_stable_velocity(OPENFWI, 4500) < largest_stable_velocity(OPENFWI, 1500)

    def test_velocity_and_time_step_limits_agree(self) -> None:
        limit = largest_stable_velocity(OPENFWI, 2000)
        assert largest_stable_time_step(OPENFWI, 2000, limit) == pytest.approx(OPENFWI.time_step)


def with_value(value: float) -> torch.Tensor:
    velocity = torch.full((2, 30, 40), 2000.0)
    velocity[1, 4, 7] = value
    return velocity


BAD = {
    "not a tensor": (np.full((30, 40), 2000.0), r"must be a torch.Tensor .* got ndarray: convert it with torch.as"),
    "integers": (torch.full((30, 40), 2000), r"floating-point type, got torch.int64: .* velocity.float\(\)"),
    "another device": (torch.empty(30, 40, device="meta"), r"CPU or on a CUDA device, got meta: pass velocity.cpu\(\)"),
    "a wider map": (torch.full((2, 30, 190), 2e3), r"\(2, 30, 190\) does not .*Survey.surface\(width=190, depth=30\)"),
    "a line": (torch.full((40,), 2e3), r"shape \(40,\) does not fit .* \(30, 40\) .* shape \(\.\.\., 30, 40\)"),
    "NaN": (with_value(float("nan")), r"finite, got nan at row 4, column 7 of map 1 \(1 of its 1200"),
    "infinity": (with_value(float("inf")), r"finite, got inf at row 4, column 7 of map 1"),
    "zero": (with_value(0.0), r"positive, got 0 m/s at row 4, column 7 of map 1"),
    "negative": (with_value(-0.3), r"positive, got -0.3 m/s at row 4, column 7 of map 1"),
    "too fast": (with_value(9000.0), r"reaches 9000 m/s in map 1, .* stable velocity is 5\d\d\d m/s .* 0.000\d+ s or"),
}  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_one_sentence_says_what_and_what_to_do(self, name: str) -> None:
        velocity, sentence = BAD[name]
        with pytest.raises(UserError, match=sentence) as caught:
            simulate(velocity, SMALL)
        assert "\n" not in str(caught.value)

    def test_the_time_step_it_names_does_work(self) -> None:
        with pytest.raises(UserError) as caught:
            simulate(with_value(9000.0), SMALL)
        step = float(str(caught.value).split("the time step to ")[1].split(" s")[0])
        assert simulate(with_value(9000.0), replace(SMALL, time_step=step)).isfinite().all()

    def test_a_sponge_that_is_unstable_by_itself(self) -> None:
        with pytest.raises(UserError, match=r"sponge of 2 cells damps too hard .* wider"):
            simulate(layered(), replace(SMALL, sponge=2))
