"""What self-supervised pretraining hides of a record: blocks of traces, or a band of frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data.training import random_numbers
from fwi_lightning.errors import UserError
from fwi_lightning.models import VelocityModel

BLOCK = 7
"""Receivers of a block of hidden traces, 70 m for OpenFWI: one missing trace alone is the mean of its neighbours."""

BAND = 3.0
"""End of the wavelet's band, in units of its peak frequency: 45 Hz for OpenFWI."""


class Mask(Protocol):
    """A way to split records x into a hidden part P x and the rest x - P x, P a projection of each sample's own."""

    def draw(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        """What is hidden of one sample."""
        ...

    def hidden(self, records: Tensor, drawn: Tensor) -> Tensor:
        """P x of records (batch, shots, samples, receivers), in float32.

        Args:
            records: x.
            drawn: What `draw` gave for each sample, (batch, ...) bool.
        """
        ...


class TraceMask:
    """Hides whole traces, in blocks of neighbouring receivers.

    The receivers of each shot are divided into blocks, whose beginning is drawn for each shot; so many of all shots'
    blocks are hidden.

    Args:
        share: Share of the blocks that is hidden, between 0 and 1. At least one is, at least one is not.
        shots: Number of shots.
        receivers: Number of receivers.
    """

    def __init__(self, share: float, shots: int, receivers: int) -> None:
        self.share, self.shots, self.receivers = share, shots, receivers
        blocks = max(2, round(receivers / BLOCK))
        self.block = np.arange(receivers) * blocks // receivers
        self.blocks = int(self.block[-1]) + 1

    def draw(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        """(shots, receivers), True where hidden."""
        total = self.shots * self.blocks
        chosen = generator.permutation(total) < np.clip(round(self.share * total), 1, max(total - 1, 1))
        traces = chosen.reshape(self.shots, self.blocks)[:, self.block]
        return np.stack([np.roll(row, generator.integers(self.receivers)) for row in traces])

    def hidden(self, records: Tensor, drawn: Tensor) -> Tensor:
        """The hidden traces of records (batch, shots, samples, receivers), zeros elsewhere."""
        return records.float() * drawn[:, :, None]


class BandMask:
    """Hides a band of frequencies, the same in all traces of a sample.

    Args:
        share: Share of the wavelet's band that is hidden, between 0 and 1; at least one frequency.
        samples: Samples of a trace.
        time_step: Seconds between them.
        frequency: Peak of the wavelet, Hz.
    """

    def __init__(self, share: float, samples: int, time_step: float, frequency: float) -> None:
        self.samples = samples
        self.frequencies = np.fft.rfftfreq(samples, time_step)
        self.band = int((self.frequencies <= BAND * frequency).sum())
        self.width = int(np.clip(round(share * self.band), 1, self.band))

    def draw(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        """(frequencies,), True where hidden."""
        first = generator.integers(self.band - self.width + 1)
        number = np.arange(len(self.frequencies))
        return (number >= first) & (number < first + self.width)

    def hidden(self, records: Tensor, drawn: Tensor) -> Tensor:
        """The hidden band of records (batch, shots, samples, receivers)."""
        # Half precision knows no Fourier transform.
        with torch.autocast(records.device.type, enabled=False):
            spectrum = torch.fft.rfft(records.float(), dim=2) * drawn[:, None, :, None]
            return torch.fft.irfft(spectrum, n=self.samples, dim=2)


TASKS = ("masked_traces", "masked_spectra")
"""The self-supervised tasks."""


def make_mask(task: str, share: float, model: VelocityModel) -> Mask:
    """The mask of a task, for what a model's transform makes of gathers.

    Args:
        task: One of `TASKS`.
        share: Share that is hidden.
        model: The model.

    Raises:
        UserError: If there is no such task, or the share does not lie between 0 and 1.
    """
    if task not in TASKS:
        raise UserError(f"task must be {' or '.join(TASKS)} where there are no labels, got {task!r}.")
    if not 0 < share < 1:
        raise UserError(f"share must lie between 0 (nothing is hidden) and 1 (all is), got {share}.")
    survey, transform = model.survey, model.transform
    if task == "masked_traces":
        return TraceMask(share, survey.shots, survey.receivers)
    return BandMask(share, transform.samples, transform.step * survey.time_step, survey.frequency)


def draw_masks(mask: Mask, indices: Sequence[int], *key: int) -> Tensor:
    """What is hidden of some samples; it depends on the sample's number and the key alone, not on its batch.

    Args:
        mask: The mask.
        indices: Numbers of the samples.
        *key: The epoch, in training; nothing in validation, where a sample always has the same mask.

    Returns:
        (samples, ...) bool.
    """
    return torch.from_numpy(np.stack([mask.draw(random_numbers(index, *key)) for index in indices]))
