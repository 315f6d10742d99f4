"""Stacks of layers, flat or bent: the Vel families, and the material of the Fault families."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLOWEST, FASTEST = 1500, 4500
"""Bounds of every velocity in OpenFWI, m/s, both included."""

OPENFWI_DEPTH = 70
"""Rows of an OpenFWI map: the depth for which thicknesses and throws are given."""

SHORTEST_PERIOD = 14
"""Shortest period of a bending curve in cells: 70 / 5."""

_LAYER_COUNTS = np.arange(3, 9)
_LAYER_CHANCES = np.array([1, 2, 2, 2, 2, 1]) / 10  # 3 and 8 layers are half as likely as 4 to 7
_GAP_GROWING = 60  # m/s between neighbours of a growing stack; without it sorted draws come arbitrarily close
_BEND = (4.0, 12.0)  # cells: the sines seldom peak together, 12 in sum give 10 at most, mostly


def layers(rng: np.random.Generator, shape: tuple[int, int], bent: bool, growing: bool) -> NDArray[np.float64]:
    """Draw a map of 3 to 8 layers, every interface flat or bent by one shared curve.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).
        bent: Bend the layers (CurveVel) or leave them flat (FlatVel).
        growing: Velocity grows with depth (the A families), else it comes in any order (B).

    Returns:
        (depth, width) float64, m/s, whole numbers.
    """
    depth, width = shape
    count = int(rng.choice(_LAYER_COUNTS, p=_LAYER_CHANCES))
    # thinnest 3 and thickest 35 cells of 70
    interfaces = draw_interfaces(rng, count, depth, thinnest=3 / 70, thickest=1 / 2)
    velocities = draw_velocities(rng, count, growing, _GAP_GROWING if growing else 1)
    bend = np.zeros(width)
    if bent:
        bend = draw_curve(rng, width, rng.uniform(*_BEND) * depth / OPENFWI_DEPTH)
    return fill(np.arange(depth)[:, None] + bend, interfaces, velocities)


def draw_interfaces(
    rng: np.random.Generator, count: int, depth: int, thinnest: float, thickest: float
) -> NDArray[np.int64]:
    """Draw the rows at which a new layer begins, all stacks of allowed thicknesses being equally likely.

    Args:
        rng: Source of chance.
        count: Number of layers.
        depth: Rows of the map.
        thinnest: Least thickness of a layer as a share of the depth.
        thickest: Greatest thickness of a layer as a share of the depth.

    Returns:
        (count - 1,) growing rows; layer i + 1 begins at interface i.
    """
    least, most = max(1, round(thinnest * depth)), int(thickest * depth)
    spare = depth - count * least
    while True:
        # stars and bars: `spare` cells dealt out over the layers, each division equally likely
        bars = np.sort(rng.choice(spare + count - 1, count - 1, replace=False))
        thickness = np.diff(bars, prepend=-1, append=spare + count - 1) - 1 + least
        if thickness.max() <= most:
            return np.cumsum(thickness[:-1])


def draw_velocities(rng: np.random.Generator, count: int, growing: bool, gap: int) -> NDArray[np.int64]:
    """Draw the velocities of a stack: uniform over 1500..4500, no two of them closer than `gap`.

    Args:
        rng: Source of chance.
        count: Number of layers.
        growing: Sorted, growing with depth, else in any order.
        gap: Least difference between any two, m/s.

    Returns:
        (count,) whole numbers, m/s, from the uppermost layer to the lowest.
    """
    room = FASTEST - SLOWEST - (count - 1) * gap
    velocities = SLOWEST + np.sort(rng.integers(0, room + 1, count)) + np.arange(count) * gap
    return velocities if growing else rng.permutation(velocities)


def draw_curve(rng: np.random.Generator, width: int, amplitude: float) -> NDArray[np.float64]:
    """Draw a bending curve: a sum of sines with random phases whose amplitudes add up to `amplitude`.

    On 70 columns the periods are 70/1 .. 70/5 cells. A wider line has more of them, between its own width
    and 14 cells: the same roughness, without repeating itself every 70 columns.

    Args:
        rng: Source of chance.
        width: Columns of the map.
        amplitude: Sum of the amplitudes in cells; the curve stays within plus or minus this.

    Returns:
        (width,) float64, cells.
    """
    harmonics = np.arange(1, max(1, round(width / SHORTEST_PERIOD)) + 1)
    # squared: a few sines lead, as in the recorded maps, where most curves show one to three bumps
    weights = rng.random(harmonics.size) ** 2 / np.sqrt(harmonics)
    phases = rng.uniform(0, 2 * np.pi, harmonics.size)
    angles = 2 * np.pi * harmonics * np.arange(width)[:, None] / width + phases
    return amplitude * (np.sin(angles) @ (weights / weights.sum()))


def fill(
    rows: NDArray[np.number], interfaces: NDArray[np.number], velocities: NDArray[np.number]
) -> NDArray[np.float64]:
    """Look up the velocity at rows of an unbent stack; its first and last layer go on for ever.

    Args:
        rows: Any shape: the row in the unbent stack that each cell shows.
        interfaces: (layers - 1,) rows at which a new layer begins.
        velocities: (layers,) m/s.

    Returns:
        The shape of `rows`, float64, m/s.
    """
    # rounded first: then a bend moves every interface of a column by the same whole number of cells
    layer = np.searchsorted(interfaces, np.rint(rows), side="right")
    return velocities[layer].astype(np.float64)
