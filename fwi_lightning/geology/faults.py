"""The Fault families: one fault through a simple stack (A), two stacks side by side cut by slivers (B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.geology.layers import OPENFWI_DEPTH, draw_curve, draw_interfaces, draw_velocities, fill

THROW = (5, 15)
"""Least and greatest vertical offset at the fault of the A families, cells of 70."""

SLIVER_SHIFT = (5, 20)
"""Least and greatest vertical offset inside a sliver of the B families, cells of 70."""

SLIVER_WIDTH = (2, 6)
"""Least and greatest width of a sliver, cells."""

SLIVERS = (3, 6)
"""Least and greatest number of slivers in a map of 70 columns."""

STACK_LAYERS = 6
"""Layers of each of the two stacks of the B families: 12 values in all."""

_GAP_ONE_FAULT = 200  # m/s: with two or three values every interface is plain to see
_GAP_TWO_STACKS = 60  # m/s
_BEND_ONE_FAULT = (3.0, 12.0)  # cells
_BEND_TWO_STACKS = (10.0, 25.0)  # cells: the sines seldom peak together, 25 in sum give 20 at most, mostly
_LIFT = 8.0  # cells: a stack may begin above the map, so that several of its layers touch the surface
_FLAT_STACKS = 0.15  # share of the stacks in CurveFault_B that are hardly bent
_EDGE = 5  # columns at either side that no main fault reaches


@dataclass(frozen=True)
class _Fault:
    """A straight fault: at row z it stands at column `column + lean * z`."""

    column: float
    lean: float

    def right_of(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(depth, width): whether a cell lies on the fault's right side."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        return columns >= self.column + self.lean * rows


def one_fault(rng: np.random.Generator, shape: tuple[int, int], bent: bool) -> NDArray[np.float64]:
    """Draw a stack of two or three layers, flat or bent, that one tilted fault offsets by 5 to 15 cells.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).
        bent: Bend the interfaces (CurveFault_A) or leave them flat (FlatFault_A).

    Returns:
        (depth, width) float64, m/s, whole numbers.
    """
    depth, width = shape
    scale = depth / OPENFWI_DEPTH
    throw = round(rng.integers(*THROW, endpoint=True) * scale)
    curve = np.zeros(width)
    if bent:
        curve = draw_curve(rng, width, rng.uniform(*_BEND_ONE_FAULT) * scale)
    # every interface shows on both sides of the fault, however the bend and the throw move it
    margin = int(np.abs(curve).max()) + throw // 2 + 4
    interfaces = _draw_one_or_two(rng, margin, depth - margin, apart=round(8 * scale))
    velocities = draw_velocities(rng, interfaces.size + 1, growing=True, gap=_GAP_ONE_FAULT)
    fault = _draw_fault(rng, shape, row=float(interfaces[0]))
    # half of the throw on either side: the fault stays where the interface is
    offset = np.where(fault.right_of(shape), throw - throw // 2, -(throw // 2)) * rng.choice([-1, 1])
    return fill(np.arange(depth)[:, None] + curve + offset, interfaces, velocities)


def _draw_one_or_two(rng: np.random.Generator, first: int, last: int, apart: int) -> NDArray[np.int64]:
    """Draw the row of one interface, or now and then of two, within first..last."""
    interfaces = rng.integers(first, last, size=2, endpoint=True)
    two = rng.random() < 0.5 and abs(interfaces[1] - interfaces[0]) >= apart
    return np.sort(interfaces) if two else interfaces[:1]


def two_stacks(rng: np.random.Generator, shape: tuple[int, int], bent: bool) -> NDArray[np.float64]:
    """Draw two independent stacks of six, each growing with depth, at a steep main fault, cut by slivers.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).
        bent: Each stack is bent by a curve of its own (CurveFault_B), else flat (FlatFault_B).

    Returns:
        (depth, width) float64, m/s, whole numbers, 12 different values.
    """
    while True:
        velocity = _two_stacks(rng, shape, bent)
        # a bend or the fault may have pushed a layer out of the map: then draw another map
        if np.unique(velocity).size == 2 * STACK_LAYERS:
            return velocity


def _two_stacks(rng: np.random.Generator, shape: tuple[int, int], bent: bool) -> NDArray[np.float64]:
    """Draw one candidate for `two_stacks`."""
    main = _draw_fault(rng, shape, row=shape[0] / 2)
    shift = np.zeros(shape)
    count = round(rng.integers(*SLIVERS, endpoint=True) * shape[1] / 70)
    for _ in range(count):
        inside, amount = _draw_sliver(rng, shape)
        shift[inside] = amount
    left, right = (_draw_stack(rng, own, shift, bent) for own in _draw_twelve(rng))
    return np.where(main.right_of(shape), right, left)


def _draw_stack(
    rng: np.random.Generator, velocities: NDArray[np.int64], shift: NDArray[np.float64], bent: bool
) -> NDArray[np.float64]:
    """Draw a stack that fills the whole map, (depth, width) m/s, `shift` cells higher where that says so."""
    depth, width = shift.shape
    interfaces = draw_interfaces(rng, velocities.size, depth, thinnest=4 / 70, thickest=25 / 70)
    curve = np.zeros(width)
    if bent:
        reach = rng.uniform(*_BEND_TWO_STACKS) if rng.random() > _FLAT_STACKS else rng.uniform(0.0, 3.0)
        curve = draw_curve(rng, width, reach * depth / OPENFWI_DEPTH)
        curve += rng.uniform(0.0, _LIFT) * depth / OPENFWI_DEPTH
    return fill(np.arange(depth)[:, None] + curve + shift, interfaces, velocities)


def _draw_twelve(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the velocities of both stacks, (2, 6) m/s, no value in both."""
    while True:
        both = np.stack([draw_velocities(rng, STACK_LAYERS, True, _GAP_TWO_STACKS) for _ in range(2)])
        if np.unique(both).size == both.size:
            return both


def _draw_fault(rng: np.random.Generator, shape: tuple[int, int], row: float) -> _Fault:
    """Draw a steep fault that passes `row` in the middle half and never reaches the edge columns."""
    depth, width = shape
    # 50 to 82 degrees of dip, steeper where the map is too narrow for that
    flattest = min(0.84, 0.98 * (width - 1 - 2 * _EDGE) / (depth - 1))
    while True:
        lean = rng.uniform(min(0.14, flattest / 2), flattest) * rng.choice([-1, 1])
        fault = _Fault(rng.uniform(0.25, 0.75) * (width - 1) - lean * row, lean)
        ends = (fault.column, fault.column + lean * (depth - 1))
        if min(ends) >= _EDGE and max(ends) <= width - 1 - _EDGE:
            return fault


def _draw_sliver(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], int]:
    """Draw a narrow tilted strip of the map and the cells by which the rock in it has moved up."""
    depth, width = shape
    rows, columns = np.ogrid[:depth, :width]
    lean = rng.uniform(0.15, 0.8) * rng.choice([-1, 1])
    across = int(rng.integers(*SLIVER_WIDTH, endpoint=True))
    length = rng.uniform(0.4, 1.0) * depth
    # most come out at the surface
    top = 0.0 if rng.random() < 0.6 else rng.uniform(0.0, 1.0) * (depth - length)
    left_side = rng.uniform(0.06, 0.94) * width + lean * (rows - depth / 2)
    inside = (columns >= left_side) & (columns < left_side + across) & (rows >= top) & (rows < top + length)
    amount = round(rng.integers(*SLIVER_SHIFT, endpoint=True) * depth / OPENFWI_DEPTH)
    return inside, int(amount)
