"""Flaws of a recording: the ground stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.data.augment.base import Augmentation, check_probability, check_range
from fwi_lightning.survey import Survey


class Corruption(Augmentation):
    """Gain, noise, dead traces and late triggers, in this order; the map is left alone.

    Amounts are drawn anew for each sample, uniformly in their ranges (the gain on a logarithmic scale, where halving
    and doubling are equally far). Noise is white and Gaussian.

    Args:
        survey: The survey of the gathers.
        gain: Share of the samples whose shots have a wrong strength. Default 0.5.
        gain_range: Factor on each shot, drawn for every shot. Default (0.8, 1.25).
        noise: Share of the samples with noise. Default 0.5.
        noise_level: Rms of the noise over that of the shot's gather, which is mostly the direct wave: reflections
            are some thirty times weaker. Default (0, 0.02).
        dead: Share of the samples with dead traces. Default 0.2.
        dead_traces: Share of such a sample's traces that are zero. Default (0, 0.05).
        shift: Share of the samples whose shots were triggered late or early. Default 0.
        shift_range: Seconds by which the record of a shot is late, drawn for every shot and rounded to whole samples;
            zeros stand where nothing was recorded. Default (-0.004, 0.004).

    Raises:
        UserError: If a probability or a range is out of range.
    """

    def __init__(
        self,
        survey: Survey,
        gain: float = 0.5,
        gain_range: Sequence[float] = (0.8, 1.25),
        noise: float = 0.5,
        noise_level: Sequence[float] = (0.0, 0.02),
        dead: float = 0.2,
        dead_traces: Sequence[float] = (0.0, 0.05),
        shift: float = 0.0,
        shift_range: Sequence[float] = (-0.004, 0.004),
    ) -> None:
        super().__init__(survey)
        self.gain = check_probability("gain", gain)
        self.gain_range = check_range("gain_range", gain_range, 1e-3, 1e3)
        self.noise = check_probability("noise", noise)
        self.noise_level = check_range("noise_level", noise_level, 0, 10)
        self.dead = check_probability("dead", dead)
        self.dead_traces = check_range("dead_traces", dead_traces, 0, 1)
        self.shift = check_probability("shift", shift)
        duration = survey.samples * survey.time_step
        self.shift_range = check_range("shift_range", shift_range, -duration, duration)

    def corrupt(self, gathers: Tensor, seed: int) -> None:
        """Corrupt the gathers of a sample, (shots, time, receivers), in place."""
        # What is drawn on the CPU is the same wherever the gathers are; only the noise, drawn where they are, is not.
        chance = np.random.default_rng(seed)
        shots, _, receivers = gathers.shape
        if chance.random() < self.gain:
            low, high = np.log(self.gain_range).tolist()
            factors = np.exp(chance.uniform(low, high, (shots, 1, 1)))
            gathers *= torch.as_tensor(factors, dtype=gathers.dtype, device=gathers.device)
        if chance.random() < self.noise:
            level = chance.uniform(*self.noise_level)
            source = torch.Generator(gathers.device).manual_seed(seed)
            noise = torch.empty_like(gathers).normal_(generator=source)
            gathers += level * gathers.square().mean(dim=(1, 2), keepdim=True).sqrt() * noise
        if chance.random() < self.dead:
            dead = chance.random((shots, 1, receivers)) < chance.uniform(*self.dead_traces)
            gathers.masked_fill_(torch.as_tensor(dead, device=gathers.device), 0)
        if chance.random() < self.shift:
            steps = np.rint(chance.uniform(*self.shift_range, shots) / self.survey.time_step).astype(int)
            for record, step in zip(gathers, steps.tolist(), strict=True):
                record.copy_(record.roll(step, dims=0))
                record[slice(0, step) if step > 0 else slice(len(record) + step, None)] = 0
