"""The losses: against the wave equation written out, against scipy and finite differences; and their guards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from fwi_lightning.config import build
from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import Survey
from fwi_lightning.training.losses import CombinedLoss, L1Loss, PDEResidual, WaveformMisfit, pde_residual
from fwi_lightning.training.losses.guarded import GuardedLoss
from fwi_lightning.training.losses.waveform import envelope
from tests.physics.reference import damping

SURVEY = Survey.surface(width=24, depth=20, shots=3, samples=250, sponge=25)
LOSSES = "fwi_lightning.training.losses."


def smooth_map(seed: int, count: int = 1) -> Tensor:
    """(count, 1, depth, width): gradient with depth and a few bumps; the same smallest value, at the same place."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 6, generator=generator) * 1000
    bumps = torch.nn.functional.interpolate(coarse, SURVEY.grid, mode="bicubic")
    velocity = 1800 + 50 * torch.arange(20.0)[:, None] + bumps
    velocity[..., -1, -1] = 1500  # the sponge depends on it, which a gradient leaves out
    return velocity


def batch_of(velocity: Tensor) -> dict[str, Tensor]:
    gathers, illumination = illuminate(velocity[:, 0], SURVEY)
    return {"gathers": gathers, "velocity": velocity, "illumination": illumination[:, None]}


def residual_written_out(prediction: Tensor, truth: Tensor) -> float:
    """Step the true field through time and put the other velocity into each step's equation; all in float64."""
    dt, dx, nbc = SURVEY.time_step, SURVEY.spacing, SURVEY.sponge
    pad = (nbc, nbc, nbc, nbc)
    v, w = (torch.nn.functional.pad(m[None].double(), pad, mode="replicate")[0, 0] for m in (truth, prediction))
    kappa = torch.from_numpy(damping(truth.min().item(), SURVEY) * dt)
    wavelet, inside = SURVEY.wavelet(), (slice(nbc, -nbc), slice(nbc, -nbc))
    broken = whole = 0.0
    for column in SURVEY.shot_columns:
        old, now = torch.zeros_like(v), torch.zeros_like(v)
        for step in range(SURVEY.samples):
            lap = -5 * now
            for axis in (0, 1):
                lap = lap + 4 / 3 * (now.roll(1, axis) + now.roll(-1, axis))
                lap = lap - 1 / 12 * (now.roll(2, axis) + now.roll(-2, axis))
            lap = lap / dx**2
            lap[nbc + SURVEY.shot_row, nbc + column] += wavelet[step]
            following = (2 - kappa) * now - (1 - kappa) * old + (v * dt) ** 2 * lap
            left = following - (2 - kappa) * now + (1 - kappa) * old
            broken += (left - (w * dt) ** 2 * lap)[inside].square().sum().item()
            whole += left[inside].square().sum().item()
            old, now = now, following
    return float(np.sqrt(broken / whole))


def test_pde_residual_is_what_the_wave_equation_leaves() -> None:
    truth, prediction = smooth_map(0), smooth_map(1)
    illumination = illuminate(truth[:, 0], SURVEY)[1]
    found = pde_residual(prediction, truth, illumination, cap=float("inf"))
    assert found.item() == pytest.approx(residual_written_out(prediction[0], truth[0]), rel=1e-4)


def test_pde_residual_of_the_truth_and_of_a_uniform_error() -> None:
    truth = smooth_map(0, 2)
    illumination = illuminate(truth[:, 0], SURVEY)[1]
    assert pde_residual(truth, truth, illumination).max() < 1e-5
    torch.testing.assert_close(pde_residual(truth * 1.05, truth, illumination), torch.full((2,), 1.05**2 - 1))


def test_pde_loss_simulates_where_the_batch_has_no_illumination() -> None:
    batch, prediction = batch_of(smooth_map(0, 2)), smooth_map(1, 2)
    cached = PDEResidual()(prediction, batch, SURVEY)
    del batch["illumination"]
    assert torch.equal(PDEResidual()(prediction, batch, SURVEY), cached)


class TestWaveform:
    def test_truth_explains_the_record_and_silence_nothing(self) -> None:
        velocity = smooth_map(0, 2)
        batch = batch_of(velocity)
        misfit = WaveformMisfit(shots=3)
        assert misfit.measure(velocity, batch, SURVEY).max() < 1e-5
        batch["gathers"] = 1e6 * batch["gathers"]
        torch.testing.assert_close(misfit.measure(velocity, batch, SURVEY), torch.ones(2))

    @pytest.mark.parametrize("setting", [{}, {"norm": "l1"}, {"normalise_traces": True}, {"envelope": True}])
    def test_gradient_equals_finite_differences(self, setting: Mapping[str, object]) -> None:
        truth, start = smooth_map(0), smooth_map(0) + 0.3 * (smooth_map(5) - smooth_map(0))
        batch, misfit = batch_of(truth), WaveformMisfit(shots=2, **setting)  # type: ignore[arg-type]
        point, change = start.clone().requires_grad_(), smooth_map(7) - smooth_map(8)
        (gradient,) = torch.autograd.grad(misfit.measure(point, batch, SURVEY).sum(), point)
        step = 0.02
        up, down = (misfit.measure(start + sign * step * change, batch, SURVEY).item() for sign in (1, -1))
        assert (gradient * change).sum().item() == pytest.approx((up - down) / (2 * step), rel=0.02)

    def test_a_last_row_of_zeros_does_not_count(self) -> None:
        velocity = smooth_map(0, 2)
        batch = batch_of(velocity)
        batch["gathers"][1, :2, -1] = 0  # of two shots; the third was simulated later
        assert WaveformMisfit(shots=3).measure(velocity, batch, SURVEY).max() < 1e-5

    def test_silent_shots_and_samples_do_not_count(self) -> None:
        prediction, batch = smooth_map(1, 2), batch_of(smooth_map(0, 2))
        batch["gathers"][0, 1] = 0
        batch["gathers"][1] = 0
        loss = WaveformMisfit(shots=3, every=1, warm_up=0, weight=1)
        assert loss(prediction, batch, SURVEY).item() < 1.5 / 2
        assert loss.skipped == 1
        without = dataclasses.replace(SURVEY, shot_columns=(SURVEY.shot_columns[0], SURVEY.shot_columns[2]))
        expected = WaveformMisfit(shots=2).measure(prediction, batch | {"gathers": batch["gathers"][:, ::2]}, without)
        torch.testing.assert_close(loss.measure(prediction, batch, SURVEY)[0], expected[0])

    def test_other_ground_and_other_time_steps(self) -> None:
        slow, coarse = smooth_map(0) * 0.5, dataclasses.replace(SURVEY, time_step=0.0014)
        assert WaveformMisfit(shots=3).measure(slow, batch_of(slow), SURVEY).max() < 1e-5
        gathers = simulate(smooth_map(0)[:, 0], coarse)
        misfit = WaveformMisfit(shots=3).measure(torch.full((1, 1, 20, 24), 5000.0), {"gathers": gathers}, coarse)
        assert misfit.isfinite().all()

    def test_shots_are_drawn_anew_in_each_step_and_the_same_after_a_resume(self) -> None:
        batch, prediction = batch_of(smooth_map(0)), smooth_map(1)
        misfit = WaveformMisfit(every=1, warm_up=0)
        values = [misfit(prediction, batch, SURVEY).item() for _ in range(12)]
        assert len({round(value, 5) for value in values}) == 3
        resumed = WaveformMisfit(every=1, warm_up=0)
        resumed.steps = 5
        assert [resumed(prediction, batch, SURVEY).item() for _ in range(7)] == values[5:]

    def test_envelope_is_that_of_scipy(self) -> None:
        gathers = simulate(smooth_map(0)[:, 0].double(), SURVEY)
        padded = torch.nn.functional.pad(gathers, (0, 0, 0, SURVEY.samples))
        expected = np.abs(scipy.signal.hilbert(padded.numpy(), axis=-2))[..., : SURVEY.samples, :]
        np.testing.assert_allclose(envelope(gathers), expected, atol=1e-5 * expected.max())


class Steep(GuardedLoss):
    """A quantity whose value and gradient a test chooses: sum(factor * velocity), a factor for each sample."""

    def measure(self, velocity: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        return (velocity * batch["factor"][:, None, None, None]).mean(dim=(1, 2, 3))


class TestGuards:
    def differentiate(self, loss: GuardedLoss, factors: list[float], prediction: Tensor | None = None) -> Tensor:
        truth = smooth_map(0, len(factors))
        prediction = (truth if prediction is None else prediction).clone().requires_grad_()
        value = loss(prediction, {"velocity": truth, "factor": torch.tensor(factors)}, SURVEY)
        value.backward()
        assert prediction.grad is not None
        return prediction.grad

    def test_gradient_in_units_of_the_l1_loss(self) -> None:
        truth = smooth_map(0, 2)
        prediction = (truth + 1).requires_grad_()
        L1Loss()(prediction, {"velocity": truth}, SURVEY).backward()
        assert prediction.grad is not None
        unit = prediction.grad[0].norm()
        gradient = self.differentiate(Steep(weight=1, clip=2), [1e-4, 1e3])
        torch.testing.assert_close(gradient[0], torch.full_like(gradient[0], 1e-4 / (2 * 480)))  # as it is
        torch.testing.assert_close(gradient[1].norm(), 2 * unit)  # clipped

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_sample_that_is_not_finite_is_left_out_and_counted(self, bad: float) -> None:
        loss = Steep(weight=1)
        gradient = self.differentiate(loss, [1e-4, bad])
        assert loss.skipped == 1
        assert gradient[0].abs().max() > 0
        assert not gradient[1].any()
        prediction = smooth_map(0, 2)
        prediction[0, 0, 3, 3] = bad
        gradient = self.differentiate(loss, [1e-4, 1e-4], prediction)
        assert loss.skipped == 2
        assert not gradient[0].any()
        assert gradient[1].abs().max() > 0

    def test_a_network_gone_astray_does_not_stop_the_simulation(self) -> None:
        prediction = smooth_map(1, 2)
        prediction[1] = float("nan")
        prediction[0, 0, 5] = 1e9
        loss = CombinedLoss(l1=L1Loss(), waveform=WaveformMisfit(every=1, warm_up=0))
        value = loss.terms["waveform"](prediction, batch_of(smooth_map(0, 2)), SURVEY)
        assert value.isfinite()
        loss(prediction, batch_of(smooth_map(0, 2)), SURVEY)
        assert loss.skipped == {"waveform": 2}

    def test_a_step_without_the_term_shows_its_last_value(self) -> None:
        batch, prediction = batch_of(smooth_map(0)), smooth_map(1)
        loss = CombinedLoss(pde=PDEResidual(every=2))
        loss(prediction, batch, SURVEY)
        before = float(loss.parts["pde"])
        assert loss(prediction, batch, SURVEY) == 0
        assert float(loss.parts["pde"]) == before > 0

    def test_every_and_warm_up(self) -> None:
        loss = Steep(weight=1, every=2, warm_up=3)
        sizes = [self.differentiate(loss, [1e-4]).norm().item() * 480**0.5 for _ in range(6)]
        np.testing.assert_allclose(sizes, [0.25e-4, 0, 0.75e-4, 0, 1e-4, 0], rtol=1e-4, atol=1e-12)

    def test_half_precision_stays_outside(self) -> None:
        seen = []

        class Spy(Steep):
            def measure(self, velocity: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
                seen.append((velocity.dtype, (velocity[0, 0] @ velocity[0, 0].T).dtype))
                return super().measure(velocity, batch, survey)

        with torch.autocast("cpu", torch.bfloat16):
            self.differentiate(Spy(weight=1), [1e-4], smooth_map(1).bfloat16())
        assert seen == [(torch.float32, torch.float32)]


def test_a_combined_loss_names_its_parts_and_adds_them() -> None:
    batch, prediction = batch_of(smooth_map(0, 2)), smooth_map(1, 2).requires_grad_()
    loss = CombinedLoss(l1=L1Loss(), pde=PDEResidual(weight=0.5, clip=1e9))
    total = loss(prediction, batch, SURVEY)
    residual = 0.5 * pde_residual(prediction, batch["velocity"], batch["illumination"]).mean()
    plain = L1Loss()(prediction, batch, SURVEY) + residual
    torch.testing.assert_close(total, plain)
    torch.testing.assert_close(loss.parts["pde"], residual.detach())
    assert set(loss.parts) == {"l1", "pde"}
    found, expected = (torch.autograd.grad(value, prediction, retain_graph=True)[0] for value in (total, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"_target_": LOSSES + "PDEResidual", "weight": -1}, "weight of PDEResidual must be at least 0, got -1"),
        ({"_target_": LOSSES + "PDEResidual", "cap": 0}, "cap of PDEResidual must be more than 0"),
        ({"_target_": LOSSES + "WaveformMisfit", "norm": "l3"}, "must be l1 or l2, got 'l3'"),
        ({"_target_": LOSSES + "WaveformMisfit", "shots": 0}, "shots of WaveformMisfit must be at least 1"),
        ({"_target_": LOSSES + "WaveformMisfit", "every": 0}, "every of WaveformMisfit must be at least 1"),
        ({"_target_": LOSSES + "CombinedLoss"}, "needs at least one term"),
    ],
)
def test_settings_out_of_range(config: Mapping[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(config)


def test_more_shots_than_the_survey_has() -> None:
    with pytest.raises(UserError, match="at most the survey's 3, got 4"):
        WaveformMisfit(shots=4, every=1)(smooth_map(0), batch_of(smooth_map(0)), SURVEY)


def test_illumination_follows_the_survey() -> None:
    """Twice the shots at the same place: twice the illumination, and the same residual."""
    truth, prediction = smooth_map(0), smooth_map(1)
    double = dataclasses.replace(SURVEY, shot_columns=SURVEY.shot_columns * 2)
    once, twice = (illuminate(truth[:, 0], survey)[1] for survey in (SURVEY, double))
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(pde_residual(prediction, truth, twice), pde_residual(prediction, truth, once))
