"""How far the simulated record of a predicted map is from the record itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.physics.scheme import largest_stable_velocity
from fwi_lightning.survey import Survey
from fwi_lightning.training.losses.guarded import GuardedLoss

SLOWEST = 300.0
"""m/s: slower predictions are simulated at this velocity; no ground is slower."""


class WaveformMisfit(GuardedLoss):
    """Mean over samples of ||F(prediction) - gathers|| / ||gathers||, F being the simulation.

    0 for a map that explains the record, 1 for one that explains nothing of it. Shots that are silent are left out, and
    the last time sample of a shot where it is stored as zeros; a sample of which nothing is left is skipped. Velocities
    are simulated from `SLOWEST` up to what the survey's time step can carry, whatever the network says.

    Args:
        weight: Factor. Default 0.3.
        norm: "l2" or "l1". Default "l2": the root of the energy.
        normalise_traces: Whether each trace is divided by its recorded rms, so that far receivers count as much as near
            ones. Default False.
        envelope: Whether envelopes are compared instead of waveforms: they tell a direction also where two waves are
            more than half a period apart (Bozdag et al., 2011, doi:10.1111/j.1365-246X.2011.04970.x). Default False.
        shots: Shots simulated in a step, drawn at random, the same for all samples of a batch. Default 1.
        every: As `GuardedLoss`. Default 4.
        warm_up: As `GuardedLoss`. Default 200.
        clip: As `GuardedLoss`. Default 3.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        weight: float = 0.3,
        norm: str = "l2",
        normalise_traces: bool = False,
        envelope: bool = False,
        shots: int = 1,
        every: int = 4,
        warm_up: int = 200,
        clip: float = 3.0,
    ) -> None:
        super().__init__(weight, every, warm_up, clip)
        if norm not in ("l1", "l2"):
            raise UserError(f"norm of WaveformMisfit must be l1 or l2, got {norm!r}.")
        if shots < 1:
            raise UserError(f"shots of WaveformMisfit must be at least 1, got {shots}.")
        self.norm, self.normalise_traces, self.envelope, self.shots = norm, normalise_traces, envelope, shots

    def measure(self, velocity: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """The relative misfit of each sample over the shots of this step."""
        if self.shots > survey.shots:
            raise UserError(f"shots of WaveformMisfit must be at most the survey's {survey.shots}, got {self.shots}.")
        # Another run draws other shots; a resumed one, whose random state is restored, the same.
        generator = torch.Generator().manual_seed((torch.initial_seed() << 32) % 2**63 + self.steps)
        chosen = sorted(torch.randperm(survey.shots, generator=generator)[: self.shots].tolist())
        columns = tuple(survey.shot_columns[shot] for shot in chosen)
        # The limit falls as the slowest velocity grows, which cannot be above the limit without any damping.
        fastest = largest_stable_velocity(survey, largest_stable_velocity(survey, 0))
        recorded = batch["gathers"][:, chosen].float()
        part = dataclasses.replace(survey, shot_columns=columns)
        step = survey.thinning_of(recorded.shape[2])
        simulated = simulate(velocity[:, 0].clamp(SLOWEST, 0.999 * fastest), part)[:, :, ::step]
        counts = _what_counts(recorded)
        recorded, simulated = recorded * counts, simulated * counts
        if self.normalise_traces:
            size = recorded.square().mean(dim=2, keepdim=True).sqrt()
            size = size.clamp_min(0.01 * size.amax(dim=(1, 3), keepdim=True) + 1e-12)
            recorded, simulated = recorded / size, simulated / size
        if self.envelope:
            recorded, simulated = envelope(recorded), envelope(simulated)
        difference = (simulated - recorded).flatten(1)
        order = 1 if self.norm == "l1" else 2
        return difference.norm(order, dim=1) / recorded.flatten(1).norm(order, dim=1)  # NaN where nothing counts


def _what_counts(recorded: Tensor) -> Tensor:
    """1 for the time samples of a shot that count and 0 for the rest, (batch, shots, time, 1)."""
    sounds = recorded.abs().amax(dim=3, keepdim=True) > 0
    counts = sounds.any(dim=2, keepdim=True).repeat(1, 1, recorded.shape[2], 1)
    counts[:, :, -1:] &= sounds[:, :, -1:]
    return counts.float()


def envelope(gathers: Tensor) -> Tensor:
    """The size of the analytic signal along time.

    Args:
        gathers: (..., time, receivers).

    Returns:
        As gathers, not negative. Zeros follow the record in the transform, so that its end does not meet its beginning.
    """
    samples = gathers.shape[-2]
    spectrum = torch.fft.fft(gathers, n=2 * samples, dim=-2)
    # The analytic signal: no negative frequencies, the positive ones twice.
    factor = torch.zeros(2 * samples, 1, device=gathers.device)
    factor[0] = factor[samples] = 1
    factor[1:samples] = 2
    analytic = torch.fft.ifft(spectrum * factor, dim=-2)[..., :samples, :]
    floor = 1e-6 * gathers.detach().abs().amax(dim=(-2, -1), keepdim=True) + 1e-20
    return (analytic.real.square() + analytic.imag.square() + floor.square()).sqrt()
