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

STACK_LAYERS = 6
"""Layers of each of the two stacks of the B families: 12 values in all."""

_GAP_ONE_FAULT = 200  # m/s: with two or three values every interface is plain to see
_GAP_TWO_STACKS = 60  # m/s
_LARGEST_BEND_ONE_FAULT = 10.0  # cells
_LARGEST_BEND_TWO_STACKS = 20.0  # cells


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
    count = int(rng.choice([2, 3], p=[0.6, 0.4]))
    velocities = draw_velocities(rng, count, growing=True, gap=_GAP_ONE_FAULT)
    throw = round(rng.integers(THROW[0], THROW[1], endpoint=True) * scale) * rng.choice([-1, 1])
    curve, reach = np.zeros(width), 0.0
    if bent:
        reach = rng.uniform(2.0, _LARGEST_BEND_ONE_FAULT) * scale
        curve = draw_curve(rng, width, reach)
    # The first interface must show on both sides of the fault, however the bend and the throw move it
    margin = round(reach) + abs(throw) // 2 + 3
    first = int(rng.integers(margin, depth - margin, endpoint=True))
    interfaces = np.array([first])
    if count == 3:
        thinnest = round(8 * scale)
        room = (depth - 4 - first, first - 4)  # a second interface below or above the first
        if max(room) >= thinnest:
            below = rng.random() < 0.5 if min(room) >= thinnest else room[0] >= room[1]
            other = int(rng.integers(thinnest, room[0] if below else room[1], endpoint=True))
            interfaces = np.sort([first, first + other if below else first - other])
        else:
            velocities = np.delete(velocities, 1)
    fault = _draw_fault(rng, shape, row=float(first), span=(0.25, 0.75))
    # half of the throw on either side keeps the offset centred on the interface's depth
    offset = np.where(fault.right_of(shape), throw - throw // 2, -(throw // 2))
    return fill(np.arange(depth)[:, None] + curve + offset, interfaces, velocities)


def two_stacks(rng: np.random.Generator, shape: tuple[int, int], bent: bool) -> NDArray[np.float64]:
    """Draw two independent stacks of six, each growing with depth, joined at a steep main fault and cut by slivers.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).
        bent: Each stack is bent by a curve of its own (CurveFault_B), else flat (FlatFault_B).

    Returns:
        (depth, width) float64, m/s, whole numbers, 12 different values.
    """
    while True:
        velocity = _two_stacks(rng, shape, bent)
        if np.unique(velocity).size == 2 * STACK_LAYERS:
            return velocity


def _two_stacks(rng: np.random.Generator, shape: tuple[int, int], bent: bool) -> NDArray[np.float64]:
    """Draw one candidate: the bend or a sliver may have pushed a layer out of it."""
    depth, width = shape
    scale = depth / OPENFWI_DEPTH
    shift = np.zeros(shape)
    for _ in range(rng.integers(2, 5, endpoint=True)):
        inside, amount = _draw_sliver(rng, shape)
        shift[inside] = amount
    main = _draw_fault(rng, shape, row=depth / 2, span=(0.3, 0.7))
    velocities = _draw_twelve(rng)
    stacks = []
    for own in velocities:
        curve = np.zeros(width)
        if bent:
            curve = draw_curve(rng, width, rng.uniform(4.0, _LARGEST_BEND_TWO_STACKS) * scale)
        interfaces = draw_interfaces(rng, STACK_LAYERS, depth, thinnest=4 / 70, thickest=25 / 70)
        stacks.append(fill(np.arange(depth)[:, None] + curve + shift, interfaces, own))
    return np.where(main.right_of(shape), stacks[1], stacks[0])


def _draw_twelve(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the velocities of both stacks, (2, 6) m/s, no value in both."""
    while True:
        both = np.stack([draw_velocities(rng, STACK_LAYERS, True, _GAP_TWO_STACKS) for _ in range(2)])
        if np.unique(both).size == both.size:
            return both


def _draw_fault(
    rng: np.random.Generator, shape: tuple[int, int], row: float, span: tuple[float, float]
) -> _Fault:
    """Draw a steep fault that passes `row` within `span` (shares of the width) and never reaches an edge column."""
    depth, width = shape
    while True:
        # 55 to 82 degrees of dip, to either side
        lean = rng.uniform(0.14, 0.7) * rng.choice([-1, 1])
        fault = _Fault(rng.uniform(*span) * (width - 1) - lean * row, lean)
        ends = (fault.column, fault.column + lean * (depth - 1))
        if min(ends) >= 4 and max(ends) <= width - 5:
            return fault


def _draw_sliver(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], int]:
    """Draw a narrow tilted strip of the map and the cells by which the rock in it has moved up."""
    depth, width = shape
    lean = rng.uniform(0.1, 0.8) * rng.choice([-1, 1])
    across = int(rng.integers(*SLIVER_WIDTH, endpoint=True))
    length = rng.uniform(0.4, 1.0) * depth
    top = rng.uniform(-0.2, 1.0) * (depth - length)
    centre = rng.uniform(0.08, 0.92) * width
    rows, columns = np.ogrid[:depth, :width]
    from_axis = columns - (centre + lean * (rows - depth / 2))
    inside = (np.abs(from_axis) <= across / 2) & (rows >= top) & (rows < top + length)
    amount = round(rng.integers(*SLIVER_SHIFT, endpoint=True) * depth / OPENFWI_DEPTH)
    return inside, int(amount)
