"""When a wave can reach each part of the padded grid, and until when it can still come back to a receiver.

Most of the work of a simulation would be spent on cells that are still at rest, or on waves that no receiver
will see within the record. Travel times on coarse tiles tell which: a tile counts from the first arrival from
the shot until the end of the record less the travel time to the nearest receiver. Both are taken early and
late enough to change the gathers by less than float32 rounding does; `tests/physics` holds the maps that are
hardest to get right, a constant 4500 m/s (the wave goes out through one side and comes in on the other) and
white noise.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

TILE = 8
"""Edge of a tile in cells. Smaller ones follow the front more closely but take longer to time."""

EARLY = np.float32(12)
"""Cells by which the front is taken to be ahead of its travel time: up to 6 from the middle of a tile to its
corner, the rest for the width of the front."""

LATE = np.float32(16)
"""Cells by which a tile is kept longer than its travel time to the receivers says: what is left to stand there
scatters waves much stronger than the beginning of the first arrival."""

SHORTER = np.float32(0.97)
"""Factor on all travel times: the first-order scheme overestimates them slightly across the diagonal."""

DIAGONAL = np.float32(np.sqrt(2))

EXACT = 2
"""Tiles around a shot or receiver whose times are taken from the distance; there the scheme is at its worst."""

UNREACHED = np.float32(1e9)


@njit
def tile_slowness(velocity: NDArray[np.float32], padding: int, spacing: float, time_step: float) -> NDArray[np.float32]:
    """Steps a wave takes to cross each tile of the padded grid at the fastest of the tile's velocities.

    Args:
        velocity: (depth, width), m/s.
        padding: Cells added on each side, with the map's edge values.
        spacing: Edge of a cell in m.
        time_step: Seconds of a step.

    Returns:
        (tile rows, tile columns) float32, in steps.
    """
    depth, width = velocity.shape
    rows, columns = -(-(depth + 2 * padding) // TILE), -(-(width + 2 * padding) // TILE)
    slowness = np.empty((rows, columns), np.float32)
    for a in range(rows):
        top = min(max(a * TILE - padding, 0), depth - 1)
        bottom = min(max((a + 1) * TILE - 1 - padding, 0), depth - 1)
        for b in range(columns):
            left = min(max(b * TILE - padding, 0), width - 1)
            right = min(max((b + 1) * TILE - 1 - padding, 0), width - 1)
            fastest = velocity[top : bottom + 1, left : right + 1].max()
            slowness[a, b] = TILE * spacing / (fastest * time_step)
    return slowness


@njit
def travel_times(slowness: NDArray[np.float32], times: NDArray[np.float32]) -> None:
    """First-arrival times on a periodic grid of tiles, by fast sweeping of the eikonal equation.

    Each time follows from the earlier neighbour across and the earlier one along (first-order upwind differences), or
    straight from the earliest neighbour over a corner: fast tiles that touch at their corners let a wave through,
    which the differences alone would not see. Sweeps in the four diagonal directions repeat until no time changes.
    Source: Zhao, "A fast sweeping method for eikonal equations", Math. Comp. 74 (2005).

    Args:
        slowness: (tile rows, tile columns), steps to cross a tile.
        times: As slowness, in steps; known at the sources and `UNREACHED` elsewhere on entry, all known on return.
    """
    rows, columns = slowness.shape
    changed = True
    while changed:
        changed = False
        for sweep in range(4):
            for i in range(rows):
                a = i if sweep & 1 else rows - 1 - i
                above = a - 1 if a > 0 else rows - 1
                below = a + 1 if a < rows - 1 else 0
                for j in range(columns):
                    b = j if sweep & 2 else columns - 1 - j
                    left = b - 1 if b > 0 else columns - 1
                    right = b + 1 if b < columns - 1 else 0
                    along = min(times[a, left], times[a, right])
                    across = min(times[above, b], times[below, b])
                    corner = min(
                        min(times[above, left], times[above, right]), min(times[below, left], times[below, right])
                    )
                    step, gap = slowness[a, b], along - across
                    time = min(min(along, across) + step, corner + DIAGONAL * step)
                    if abs(gap) < step:
                        slanted = along + across + np.sqrt(np.float32(2) * step * step - gap * gap)
                        time = min(time, np.float32(0.5) * slanted)
                    if time < times[a, b] - np.float32(0.01):
                        times[a, b] = time
                        changed = True


@njit
def start_at(slowness: NDArray[np.float32], row: int, column: int, times: NDArray[np.float32]) -> None:
    """Give the tiles around a cell their times, as if the fastest tile on the way were all there is.

    Args:
        slowness: (tile rows, tile columns), steps to cross a tile.
        row: Row of the cell in the padded grid.
        column: Column of the cell in the padded grid.
        times: As slowness, in steps; lowered where the cell comes first.
    """
    rows, columns = slowness.shape
    here, there = row // TILE, column // TILE
    for a in range(max(here - EXACT, 0), min(here + EXACT + 1, rows)):
        for b in range(max(there - EXACT, 0), min(there + EXACT + 1, columns)):
            fastest = slowness[min(a, here) : max(a, here) + 1, min(b, there) : max(b, there) + 1].min()
            down, along = (a + 0.5) * TILE - (row + 0.5), (b + 0.5) * TILE - (column + 0.5)
            times[a, b] = min(times[a, b], np.float32(np.sqrt(down * down + along * along) / TILE * fastest))


@njit
def windows(
    slowness: NDArray[np.float32],
    shot: tuple[int, int],
    receiver_row: int,
    receiver_columns: NDArray[np.int64],
    samples: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first and the last step at which each tile has to be computed for one shot.

    Args:
        slowness: (tile rows, tile columns), steps to cross a tile.
        shot: Row and column of the shot's cell in the padded grid.
        receiver_row: Row of the receivers in the padded grid.
        receiver_columns: Columns of the receivers in the padded grid.
        samples: Steps of the record.

    Returns:
        Two arrays like slowness; a tile never counts where the first step comes after the last.
    """
    first = np.full_like(slowness, UNREACHED)
    start_at(slowness, shot[0], shot[1], first)
    travel_times(slowness, first)
    last = np.full_like(slowness, UNREACHED)
    for column in receiver_columns:
        start_at(slowness, receiver_row, column, last)
    travel_times(slowness, last)
    for a in range(slowness.shape[0]):
        for b in range(slowness.shape[1]):
            cell = slowness[a, b] / TILE
            first[a, b] = SHORTER * first[a, b] - EARLY * cell
            last[a, b] = samples - SHORTER * last[a, b] + LATE * cell
    return first, last
