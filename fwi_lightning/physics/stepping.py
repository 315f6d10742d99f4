"""The padded grid as it lies in memory, its coefficients, and one step over the parts of it that count."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types, uint64
from numba.extending import overload
from numpy.typing import NDArray

from fwi_lightning.physics.reach import TILE, tile_slowness, windows
from fwi_lightning.physics.vectors import ROWS, advance_rows
from fwi_lightning.survey import Survey

LINE = 16
"""Columns are computed in multiples of this: the float32 numbers of a cache line. As many columns of memory lie
on either side of the field; the two next to it hold the periodic edge."""

GHOSTS = 2
"""Rows of memory above and below the field that hold the periodic edge: the reach of the difference scheme."""

BLOCK = 8
"""Steps between two looks at which tiles count."""

EVERY, REACHED, HEARD = 0, 1, 2
"""Which tiles are computed: all in all steps; those the wave can have reached; of these, those that can still be
heard at a receiver within the record."""

Array = NDArray[np.floating[Any]]


def element(arrays: Any, index: Any) -> Any:
    """One of several arrays; None where there are none. numba decides which when it compiles."""
    return None if arrays is None else arrays[index]


@overload(element, strict=False)
def _element(arrays: Any, index: Any) -> Any:
    if isinstance(arrays, types.NoneType):
        return lambda arrays, index: None
    return lambda arrays, index: arrays[index]


class Geometry(NamedTuple):
    """What the kernels have to know of a survey, in types that numba knows."""

    depth: int
    width: int
    padding: int
    samples: int
    spacing: float
    time_step: float
    shot_row: int
    """Row of the shots in the padded grid."""
    receiver_row: int
    """Row of the receivers in the padded grid."""
    rows: int
    """Rows of the padded grid."""
    columns: int
    """Columns of the padded grid."""
    row_count: int
    """Rows rounded up to what one call of the kernel computes; those too many are worthless and unused."""
    column_count: int
    """Columns rounded up to whole lines."""
    stride: int
    """From a row to the next in the fields."""


def geometry_of(survey: Survey) -> Geometry:
    """The padded grid of a survey."""
    depth, width = survey.grid
    rows, columns = depth + 2 * survey.sponge, width + 2 * survey.sponge
    column_count = -(-columns // LINE) * LINE
    return Geometry(
        depth=depth,
        width=width,
        padding=survey.sponge,
        samples=survey.samples,
        spacing=survey.spacing,
        time_step=survey.time_step,
        shot_row=survey.shot_row + survey.sponge,
        receiver_row=survey.receiver_row + survey.sponge,
        rows=rows,
        columns=columns,
        row_count=-(-rows // ROWS) * ROWS,
        column_count=column_count,
        stride=column_count + 2 * LINE,
    )


class Coefficients(NamedTuple):
    """The tables of one map: single rows, and where the row of each row of the padded grid begins."""

    alpha: Array
    """One twelfth of alpha, a row for each row of the map: the padding repeats the first and the last."""
    alpha_rows: NDArray[np.uint64]
    keep: Array
    """1 - kappa, a row for the map and one for each distance above or below it."""
    keep_rows: NDArray[np.uint64]


def field_size(g: Geometry) -> int:
    """Numbers of a field in memory, with its ghosts."""
    return (g.row_count + 2 * GHOSTS) * g.stride


def table_size(g: Geometry) -> int:
    """Numbers of the coefficients of one map."""
    return (g.depth + g.padding + 1) * g.column_count


@njit
def offset(g: Geometry, row: int, column: int) -> int:
    """Where a cell of the padded grid lies in a field."""
    return (row + GHOSTS) * g.stride + LINE + column


@njit
def fill_coefficients(velocity: Array, slowest: float, profile: Array, g: Geometry, memory: Array) -> Coefficients:
    """The tables of one map.

    Args:
        velocity: (depth, width), m/s.
        slowest: m/s, what the damping is proportional to.
        profile: (padding,), the damping for each m/s of it.
        g: The padded grid.
        memory: Where the tables go, of `table_size(g)` numbers.

    Returns:
        The tables.
    """
    size = g.depth * g.column_count
    alpha, keep = memory[:size], memory[size:]
    _fill_alpha(velocity, g, alpha)
    _fill_keep(profile * slowest, g, keep)
    alpha_rows, keep_rows = _table_rows(g)
    return Coefficients(alpha, alpha_rows, keep, keep_rows)


@njit
def _fill_alpha(velocity: Array, g: Geometry, alpha: Array) -> None:
    """One twelfth of alpha along each row of the map and the padding beside it; 0 beyond the padded grid."""
    number = alpha.dtype.type
    dt, dx = number(g.time_step), number(g.spacing)
    for row in range(g.depth):
        at = row * g.column_count
        for column in range(g.columns):
            ratio = velocity[row, min(max(column - g.padding, 0), g.width - 1)] * dt / dx
            alpha[at + column] = ratio * ratio / number(12)
        alpha[at + g.columns : at + g.column_count] = 0


@njit
def _fill_keep(kappa: Array, g: Geometry, keep: Array) -> None:
    """1 - kappa along a row, for rows of the map (row 0) and for rows 1, 2, ... cells above or below it.

    The columns beside the map are damped by their distance from its sides in all rows, the corners included;
    the columns of the map by the row's distance from it.
    """
    for row in range(g.padding + 1):
        at = row * g.column_count
        inside = kappa[max(row - 1, 0)]
        for column in range(g.columns):
            beside = max(g.padding - 1 - column, column - g.padding - g.width)
            keep[at + column] = 1 - (kappa[beside] if beside >= 0 else inside)
        keep[at + g.columns : at + g.column_count] = 0


@njit
def _table_rows(g: Geometry) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Where the rows of alpha and of 1 - kappa begin that belong to each row of the padded grid."""
    alpha_rows, keep_rows = np.empty(g.row_count, np.uint64), np.empty(g.row_count, np.uint64)
    for row in range(g.row_count):
        below_top = row - g.padding
        alpha_rows[row] = min(max(below_top, 0), g.depth - 1) * g.column_count
        keep_rows[row] = min(max(-below_top, below_top - g.depth + 1, 0), g.padding) * g.column_count
    return alpha_rows, keep_rows


@njit
def when_to_compute(
    velocity: Array, g: Geometry, shot: tuple[int, int], receiver_columns: NDArray[np.int64], which: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first and the last step at which each tile is computed.

    Args:
        velocity: (depth, width), m/s.
        g: The padded grid.
        shot: Row and column of the shot's cell in the padded grid.
        receiver_columns: (receivers,), in the map.
        which: `EVERY`, `REACHED` or `HEARD`.

    Returns:
        Two arrays, an element a tile.
    """
    slowness = tile_slowness(velocity, g.padding, g.spacing, g.time_step)
    if which == EVERY:
        return np.zeros_like(slowness), np.full_like(slowness, g.samples)
    first, last = windows(slowness, shot, g.receiver_row, receiver_columns + g.padding, g.samples)
    if which == REACHED:
        last[:] = g.samples
    return first, last


@njit
def find_bounds(
    first: NDArray[np.float32],
    last: NDArray[np.float32],
    step: int,
    column_count: int,
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """The columns of each row of tiles that count in the block of steps around a step: left up to right.

    Both are whole lines; left = right where no tile counts.
    """
    left, right = bounds
    begun = step // BLOCK * BLOCK
    start, stop = np.float32(begun), np.float32(begun + BLOCK)
    tiles = first.shape[1]
    for a in range(len(first)):
        begin, end = tiles, 0
        for b in range(tiles):
            counts = (first[a, b] < stop) & (last[a, b] >= start)
            begin = min(begin, b if counts else tiles)
            end = max(end, b + 1 if counts else 0)
        left[a] = begin * TILE // LINE * LINE if end else 0
        right[a] = min((end * TILE + LINE - 1) // LINE * LINE, column_count)


@njit
def advance(
    now: Array,
    old: Array,
    g: Geometry,
    tables: Coefficients,
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    laplacian: Array | None,
    image: Array | None,
) -> None:
    """One step on all tiles that count: the field to come takes the place of the old one.

    Args:
        now: The present field, flat.
        old: The field a step back, flat; overwritten.
        g: The padded grid.
        tables: The coefficients.
        bounds: As `find_bounds` makes them.
        laplacian: As `advance_rows`.
        image: As `advance_rows`.
    """
    left, right = bounds
    if right[0] > left[0] or right[-1] > left[-1]:
        _wrap_rows(now, g)
    stride = uint64(g.stride)
    for a in range(len(left)):
        start, count = uint64(left[a]), uint64(right[a] - left[a])
        if count == 0:
            continue
        touches_edge = left[a] == 0 or right[a] == g.column_count
        for row in range(a * TILE, min((a + 1) * TILE, g.row_count), ROWS):
            at = uint64(offset(g, row, left[a]))
            alpha_at = _four(tables.alpha_rows, row, start)
            keep_at = _four(tables.keep_rows, row, start)
            advance_rows(  # type: ignore[call-arg]
                now, old, tables.alpha, tables.keep, at, stride, alpha_at, keep_at, count, laplacian, image
            )
            if touches_edge:
                for k in range(ROWS):
                    _wrap_columns(old, offset(g, row + k, 0), g.columns)


@njit
def _four(begins: NDArray[np.uint64], row: int, start: int) -> tuple[int, int, int, int]:
    """Where four rows of a table begin, so many columns on."""
    return begins[row] + start, begins[row + 1] + start, begins[row + 2] + start, begins[row + 3] + start


@njit
def _wrap_rows(field: Array, g: Geometry) -> None:
    """The rows beyond the top and the bottom: those of the opposite side."""
    for k in range(GHOSTS):
        for i in range(g.stride):
            field[k * g.stride + i] = field[(k + g.rows) * g.stride + i]
            field[(k + GHOSTS + g.rows) * g.stride + i] = field[(k + GHOSTS) * g.stride + i]


@njit
def _wrap_columns(field: Array, at: int, columns: int) -> None:
    """The columns beyond the sides of the row that starts at `at`: those of the opposite side."""
    field[at - 2] = field[at + columns - 2]
    field[at - 1] = field[at + columns - 1]
    field[at + columns] = field[at]
    field[at + columns + 1] = field[at + 1]
