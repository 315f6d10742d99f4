"""The scale that networks answer on."""

from __future__ import annotations

from torch import Tensor

VELOCITY_CENTRE = 3000.0
VELOCITY_HALF_RANGE = 1500.0
"""m/s: the labels of OpenFWI, 1500 to 4500, become [-1, 1]."""


def normalise_velocity(velocity: Tensor) -> Tensor:
    """Velocity in m/s to the published label scale, 1500..4500 to [-1, 1]; any shape."""
    return (velocity - VELOCITY_CENTRE) / VELOCITY_HALF_RANGE
