"""What every augmentation is, the sample that it changes, and the checks of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


@dataclass(frozen=True)
class Sample:
    """A training sample on its way to the network.

    Attributes:
        gathers: (shots, time, receivers) float32. What stands in a missing shot means nothing.
        missing: (shots,) bool, the shots that are still to be simulated over the map.
        velocity: (1, depth, width) float32, m/s.
        family: Number of its family.
        index: Its number, as in `GathersDataset`.
        illumination: (1, depth, width) float32 where a loss needs it, else None; it means nothing where every shot is
            missing.
        start: (1, depth, width) float32 in m/s, the map that a refiner is to correct; else None.
        residual: (shots, samples, receivers) float32, the record less that of `start`, thinned in time; else None.
        gradient: (1, depth, width) float32, of the misfit at `start`; else None.
        spare: Gathers of shots that the survey does not have and the file does, (time, receivers) by column: `Flip`
            needs them. None where there are none.
    """

    gathers: Tensor
    missing: Tensor
    velocity: Tensor
    family: int
    index: int
    illumination: Tensor | None = None
    start: Tensor | None = None
    residual: Tensor | None = None
    gradient: Tensor | None = None
    spare: Mapping[int, Tensor] | None = None

    def over(self, velocity: Tensor) -> Sample:
        """The same sample over another map, (1, depth, width) in m/s: every shot is to be simulated."""
        return replace(self, velocity=velocity, missing=torch.ones_like(self.missing), spare=None)


Partner = Callable[[np.random.Generator, bool], Tensor]
"""The map of another training sample, (1, depth, width) in m/s, of the same family (True) or of another (False)."""


class Augmentation:
    """Base of all augmentations: changes nothing.

    Args:
        survey: The survey of the gathers.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey

    def change(self, sample: Sample, generator: np.random.Generator, partner: Partner) -> Sample:
        """Another sample made of this one, which stays as it is; gathers that no longer fit are marked missing.

        Args:
            sample: The sample.
            generator: Where chance comes from; it depends on seed, epoch and sample alone.
            partner: Gives maps of other samples.
        """
        return sample

    def corrupt(self, gathers: Tensor, seed: int) -> None:
        """Change whole gathers in place, after all simulation.

        Args:
            gathers: (shots, time, receivers), on any device.
            seed: Where chance comes from; it depends on seed, epoch and sample alone.
        """


def check_probability(name: str, value: float) -> float:
    """Return a probability.

    Raises:
        UserError: If it is not within 0..1.
    """
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise UserError(f"{name} must be a probability from 0 (never) to 1 (always), got {value!r}.")
    return float(value)


def check_range(name: str, value: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Return the two ends of a range.

    Raises:
        UserError: If it is no pair of ascending numbers within least..most.
    """
    ends = list(value) if isinstance(value, Sequence) else []
    if len(ends) != 2 or not all(isinstance(end, Real) for end in ends) or not least <= ends[0] <= ends[1] <= most:
        raise UserError(f"{name} must be [lowest, highest] within {least:g} to {most:g}, got {value!r}.")
    return float(ends[0]), float(ends[1])


def check_size(name: str, value: float, most: float) -> float:
    """Return a number that is 0 or more.

    Raises:
        UserError: If it is not within 0..most.
    """
    if not isinstance(value, Real) or not 0 <= value <= most:
        raise UserError(f"{name} must be a number from 0 to {most:g}, got {value!r}.")
    return float(value)
