"""The forward simulation on a CPU: each thread takes a (sample, shot) of its own and steps it through time.

A shot is two float32 fields, the present one and the one a step back; every step overwrites the older one.
What makes it fast, most important first:

1. Cells are left out before the wave can have reached them, and once nothing in them can reach a receiver any
   more (`fwi_lightning.physics.reach`).
2. Four rows are computed at once, a vector register of each at a time (`fwi_lightning.physics.vectors`).
3. Only the two fields are read from the far caches. The coefficients are tables of single rows: alpha has one
   for each row of the map (the padding above and below repeats the first and the last), 1 - kappa one for each
   distance from the map.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange, uint64
from numpy.typing import NDArray

from fwi_lightning.physics.reach import TILE, tile_slowness, windows
from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.physics.vectors import (
    FLUSH_TO_ZERO,
    ROWS,
    advance_rows,
    get_float_control,
    set_float_control,
    take_next,
)
from fwi_lightning.survey import Survey

LINE = 16
"""Columns are computed in multiples of this: the float32 numbers of a cache line. As many columns of memory lie
on either side of the field; the two next to it hold the periodic edge."""

GHOSTS = 2
"""Rows of memory above and below the field that hold the periodic edge: the reach of the difference scheme."""

BLOCK = 8
"""Steps between two looks at which tiles count."""

_SOURCES = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
_COUNTER = np.dtype([("next_" + hashlib.sha256(_SOURCES).hexdigest(), np.int64)])
"""Type of the kernel's counter, named after the sources of the kernel.

numba keeps compiled code on disk for each combination of argument types, and renews it when the file of the
function changes, but not when a file does that it imports from. Only `_simulate`, which takes the counter, is
kept on disk: everything else is compiled into it.
"""


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


def simulate_cpu(velocity: NDArray[np.float32], survey: Survey) -> NDArray[np.float32]:
    """The gathers over maps that are known to be good.

    Args:
        velocity: (samples, depth, width), m/s, contiguous.
        survey: The acquisition.

    Returns:
        (samples, shots, time, receivers).
    """
    gathers = np.zeros((len(velocity), *survey.gathers_shape), np.float32)
    g = _geometry(survey)
    threads = max(1, min(get_num_threads(), len(velocity) * survey.shots))
    _simulate(
        velocity,
        g,
        sponge_profile(survey),
        survey.wavelet().astype(np.float32),
        np.array(survey.shot_columns),
        np.array(survey.receiver_columns),
        _aligned((threads, 2 * (g.row_count + 2 * GHOSTS) * g.stride)),
        _aligned((threads, (g.depth + g.padding + 1) * g.column_count)),
        np.zeros(1, _COUNTER),
        gathers,
    )
    return gathers


def _geometry(survey: Survey) -> Geometry:
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


def _aligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Memory that starts on a cache line; not initialised."""
    size = shape[0] * shape[1]
    memory = np.empty(size + LINE, np.float32)
    start = -(memory.ctypes.data // memory.itemsize) % LINE
    return memory[start : start + size].reshape(shape)


@njit(parallel=True, cache=True)
def _simulate(
    velocity: NDArray[np.float32],
    geometry: Geometry,
    profile: NDArray[np.float64],
    wavelet: NDArray[np.float32],
    shot_columns: NDArray[np.int64],
    receiver_columns: NDArray[np.int64],
    fields: NDArray[np.float32],
    tables: NDArray[np.float32],
    counter: NDArray[np.void],
    gathers: NDArray[np.float32],
) -> None:
    """Each thread takes the next (sample, shot) as soon as it is done with its last.

    Args:
        velocity: (samples, depth, width), m/s.
        geometry: The padded grid.
        profile: (padding,), the damping for each m/s of the slowest velocity.
        wavelet: (time,).
        shot_columns: (shots,), in the map.
        receiver_columns: (receivers,), in the map.
        fields: (threads, ...), scratch memory for the two fields.
        tables: (threads, ...), scratch memory for the coefficients.
        counter: One zero: the next (sample, shot).
        gathers: (samples, shots, time, receivers), the result.
    """
    shots = shot_columns.shape[0]
    tasks = velocity.shape[0] * shots
    for thread in prange(fields.shape[0]):
        control: int = get_float_control()  # type: ignore[call-arg]
        set_float_control(control | np.uint32(FLUSH_TO_ZERO))
        task: int = take_next(counter)
        while task < tasks:
            sample, shot = task // shots, task % shots
            _simulate_shot(
                velocity[sample],
                geometry,
                profile,
                wavelet,
                shot_columns[shot],
                receiver_columns,
                fields[thread],
                tables[thread],
                gathers[sample, shot],
            )
            task = take_next(counter)
        set_float_control(control)


@njit
def _simulate_shot(
    velocity: NDArray[np.float32],
    g: Geometry,
    profile: NDArray[np.float64],
    wavelet: NDArray[np.float32],
    shot_column: int,
    receiver_columns: NDArray[np.int64],
    fields: NDArray[np.float32],
    tables: NDArray[np.float32],
    gathers: NDArray[np.float32],
) -> None:
    """One shot: the coefficients, the tiles' times, then step after step (arguments as `_simulate`)."""
    table_size = g.depth * g.column_count
    alpha, keep = tables[:table_size], tables[table_size:]
    _fill_alpha(velocity, g, alpha)
    _fill_keep(profile * velocity.min(), g, keep)
    alpha_rows, keep_rows = _table_rows(g)

    slowness = tile_slowness(velocity, g.padding, g.spacing, g.time_step)
    shot = (g.shot_row, shot_column + g.padding)
    first, last = windows(slowness, shot, g.receiver_row, receiver_columns + g.padding, g.samples)
    left, right = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)

    source = _offset(g, shot[0], shot[1])
    receivers = _offset(g, g.receiver_row, g.padding)
    advance = velocity[g.shot_row - g.padding, shot_column] * np.float32(g.time_step)
    force = advance * advance

    fields[:] = 0
    half = len(fields) // 2
    now, old = fields[:half], fields[half:]
    for step in range(g.samples):
        if step % BLOCK == 0:
            _find_bounds(first, last, step, g.column_count, left, right)
        _advance(now, old, g, alpha, alpha_rows, keep, keep_rows, left, right)
        old[source] += force * wavelet[step]
        for k in range(len(receiver_columns)):
            gathers[step, k] = old[receivers + receiver_columns[k]]
        now, old = old, now


@njit
def _offset(g: Geometry, row: int, column: int) -> int:
    """Where a cell of the padded grid lies in a field."""
    return (row + GHOSTS) * g.stride + LINE + column


@njit
def _fill_alpha(velocity: NDArray[np.float32], g: Geometry, alpha: NDArray[np.float32]) -> None:
    """One twelfth of alpha along each row of the map and the padding beside it; 0 beyond the padded grid."""
    dt, dx = np.float32(g.time_step), np.float32(g.spacing)
    for row in range(g.depth):
        at = row * g.column_count
        for column in range(g.columns):
            ratio = velocity[row, min(max(column - g.padding, 0), g.width - 1)] * dt / dx
            alpha[at + column] = ratio * ratio / np.float32(12)
        alpha[at + g.columns : at + g.column_count] = 0


@njit
def _fill_keep(kappa: NDArray[np.float64], g: Geometry, keep: NDArray[np.float32]) -> None:
    """1 - kappa along a row, for rows of the map (row 0) and for rows 1, 2, ... cells above or below it.

    The columns beside the map are damped by their distance from its sides in all rows, the corners included;
    the columns of the map by the row's distance from it.
    """
    for row in range(g.padding + 1):
        at = row * g.column_count
        inside = kappa[max(row - 1, 0)]
        for column in range(g.columns):
            beside = max(g.padding - 1 - column, column - g.padding - g.width)
            keep[at + column] = np.float32(1 - (kappa[beside] if beside >= 0 else inside))
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
def _find_bounds(
    first: NDArray[np.float32],
    last: NDArray[np.float32],
    step: int,
    column_count: int,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """The columns of each row of tiles that count in the coming block of steps: left up to right.

    Both are whole lines; left = right where no tile counts.
    """
    start, stop = np.float32(step), np.float32(step + BLOCK)
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
def _advance(
    now: NDArray[np.float32],
    old: NDArray[np.float32],
    g: Geometry,
    alpha: NDArray[np.float32],
    alpha_rows: NDArray[np.uint64],
    keep: NDArray[np.float32],
    keep_rows: NDArray[np.uint64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """One step on all tiles that count: the field to come takes the place of the old one."""
    if right[0] > left[0] or right[-1] > left[-1]:
        _wrap_rows(now, g)
    stride = uint64(g.stride)
    for a in range(len(left)):
        start, count = uint64(left[a]), uint64(right[a] - left[a])
        if count == 0:
            continue
        touches_edge = left[a] == 0 or right[a] == g.column_count
        for row in range(a * TILE, min((a + 1) * TILE, g.row_count), ROWS):
            at = uint64(_offset(g, row, left[a]))
            alpha_at = (
                alpha_rows[row] + start,
                alpha_rows[row + 1] + start,
                alpha_rows[row + 2] + start,
                alpha_rows[row + 3] + start,
            )
            keep_at = (
                keep_rows[row] + start,
                keep_rows[row + 1] + start,
                keep_rows[row + 2] + start,
                keep_rows[row + 3] + start,
            )
            advance_rows(now, old, alpha, keep, at, stride, alpha_at, keep_at, count)  # type: ignore[call-arg]
            if touches_edge:
                for k in range(ROWS):
                    _wrap_columns(old, _offset(g, row + k, 0), g.columns)


@njit
def _wrap_rows(field: NDArray[np.float32], g: Geometry) -> None:
    """The rows beyond the top and the bottom: those of the opposite side."""
    for k in range(GHOSTS):
        for i in range(g.stride):
            field[k * g.stride + i] = field[(k + g.rows) * g.stride + i]
            field[(k + GHOSTS + g.rows) * g.stride + i] = field[(k + GHOSTS) * g.stride + i]


@njit
def _wrap_columns(field: NDArray[np.float32], at: int, columns: int) -> None:
    """The columns beyond the sides of the row that starts at `at`: those of the opposite side."""
    field[at - 2] = field[at + columns - 2]
    field[at - 1] = field[at + columns - 1]
    field[at + columns] = field[at]
    field[at + columns + 1] = field[at + 1]
