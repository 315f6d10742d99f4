"""The forward simulation on a CPU: numba kernels, each thread with a (sample, shot) of its own.

A shot is two float32 fields, the present one and the one a step back; every step overwrites the older one.
What makes it fast, most important first:

1. Cells are left out before the wave can have reached them, and once nothing in them can reach a receiver any
   more (`fwi_lightning.physics.reach`).
2. Fields are flat arrays and the offsets into them unsigned 64-bit integers: numba then emits no test for
   negative indices, and LLVM turns the loop over a row into vector instructions.
3. Only the two fields are read from a far cache. The coefficients are tables of single rows: alpha has one
   row for each row of the map (the padding above and below repeats the first and the last), 1 - kappa one for
   each distance from the map.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import get_num_threads, njit, prange, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fwi_lightning.physics.reach import TILE, tile_slowness, windows
from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.survey import Survey

LANES = 16
"""Columns are computed in multiples of this: a cache line, the widest vector (AVX-512) of float32."""

MARGIN = 16
"""Columns of memory beside the field, so that rows stay aligned; the two next to it hold the edge."""

GHOSTS = 2
"""Rows above and below the field that hold the periodic edge: the reach of the difference scheme."""

BLOCK = 8
"""Steps between two looks at which tiles count."""


class Geometry(NamedTuple):
    """What the kernels have to know of a survey, in numba's types."""

    depth: int
    width: int
    padding: int
    samples: int
    spacing: float
    time_step: float
    shot_row: int
    receiver_row: int

    # Cells of the padded grid: rows, columns, columns rounded up to whole vectors, and floats from row to
    # row.
    rows: int
    columns: int
    span: int
    stride: int


def simulate_cpu(velocity: NDArray[np.float32], survey: Survey) -> NDArray[np.float32]:
    """The gathers over maps that are known to be good.

    Args:
        velocity: (samples, depth, width), m/s, contiguous.
        survey: The acquisition.

    Returns:
        (samples, shots, time, receivers).
    """
    gathers = np.zeros((len(velocity), *survey.gathers_shape), np.float32)
    geometry = _geometry(survey)
    threads = max(1, min(get_num_threads(), len(velocity) * survey.shots))
    fields, tables = 2 * (geometry.rows + 2 * GHOSTS), geometry.depth + survey.sponge + 1
    _simulate(
        velocity,
        geometry,
        sponge_profile(survey),
        survey.wavelet().astype(np.float32),
        np.array(survey.shot_columns),
        np.array(survey.receiver_columns),
        _aligned((threads, fields * geometry.stride)),
        _aligned((threads, tables * geometry.span)),
        np.zeros(1, np.int64),
        gathers,
    )
    return gathers


def _geometry(survey: Survey) -> Geometry:
    depth, width = survey.grid
    columns = width + 2 * survey.sponge
    span = -(-columns // LANES) * LANES
    return Geometry(
        depth=depth,
        width=width,
        padding=survey.sponge,
        samples=survey.samples,
        spacing=survey.spacing,
        time_step=survey.time_step,
        shot_row=survey.shot_row + survey.sponge,
        receiver_row=survey.receiver_row + survey.sponge,
        rows=depth + 2 * survey.sponge,
        columns=columns,
        span=span,
        stride=span + 2 * MARGIN,
    )


def _aligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Memory whose rows start on a cache line; not initialised."""
    size = shape[0] * shape[1]
    memory = np.empty(size + LANES, np.float32)
    start = -(memory.ctypes.data // memory.itemsize) % LANES
    return memory[start : start + size].reshape(shape)


@intrinsic
def _take_next(typing_context: Any, counter: Any) -> Any:
    """counter[0], which goes up by one; no two threads get the same number."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        one = context.get_constant(types.int64, 1)
        return builder.atomic_rmw("add", array.data, one, "monotonic")

    return types.int64(counter), codegen


@intrinsic
def _use_widest_vectors(typing_context: Any) -> Any:
    """Ask LLVM for the widest vectors the machine has; by itself it stops at 256 bits.

    numba has no option for it and the environment variables that do the same have to be set before numba is
    imported. The attribute has no effect on other machines.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), codegen


_HAS_FLUSH_TO_ZERO = platform.machine() in ("x86_64", "AMD64")
_FLUSH_TO_ZERO = 0x8040
"""Bits of the x86 control register MXCSR that turn denormal results and operands into zeros."""


@intrinsic
def _float_control(typing_context: Any) -> Any:
    """The floating-point control register of this thread; 0 on machines other than x86."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = builder.alloca(ir.IntType(32))
        builder.store(ir.IntType(32)(0), slot)
        if _HAS_FLUSH_TO_ZERO:
            _call_with_pointer(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.load(slot)

    return types.uint32(), codegen


@intrinsic
def _set_float_control(typing_context: Any, value: Any) -> Any:
    """Set the floating-point control register of this thread; nothing on machines other than x86."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _HAS_FLUSH_TO_ZERO:
            slot = builder.alloca(ir.IntType(32))
            builder.store(arguments[0], slot)
            _call_with_pointer(builder, "llvm.x86.sse.ldmxcsr", slot)
        return context.get_dummy_value()

    return types.none(types.uint32), codegen


def _call_with_pointer(builder: Any, name: str, slot: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [pointer]), name)
    builder.call(function, [builder.bitcast(slot, pointer)])


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
    counter: NDArray[np.int64],
    gathers: NDArray[np.float32],
) -> None:
    """Each thread takes the next (sample, shot) as soon as it has done its last."""
    shots = shot_columns.shape[0]
    tasks = velocity.shape[0] * shots
    for thread in prange(fields.shape[0]):
        control: int = _float_control()  # type: ignore[call-arg]
        _set_float_control(control | np.uint32(_FLUSH_TO_ZERO))
        task: int = _take_next(counter)
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
            task = _take_next(counter)
        _set_float_control(control)


@njit(cache=True)
def _simulate_shot(
    velocity: NDArray[np.float32],
    geometry: Geometry,
    profile: NDArray[np.float64],
    wavelet: NDArray[np.float32],
    shot_column: int,
    receiver_columns: NDArray[np.int64],
    fields: NDArray[np.float32],
    tables: NDArray[np.float32],
    gathers: NDArray[np.float32],
) -> None:
    g = geometry
    alpha, keep = tables[: g.depth * g.span], tables[g.depth * g.span :]
    _fill_alpha(velocity, g, alpha)
    _fill_keep(profile * velocity.min(), g, keep)

    padding = g.padding
    slowness = tile_slowness(velocity, padding, g.spacing, g.time_step)
    shot = (g.shot_row, shot_column + padding)
    first, last = windows(slowness, shot, g.receiver_row, receiver_columns + padding, g.samples)
    left, right = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)

    source = _offset(g, shot[0], shot[1])
    receivers = _offset(g, g.receiver_row, padding)
    advance = velocity[shot[0] - padding, shot_column] * np.float32(g.time_step)
    force = advance * advance

    fields[:] = 0
    half = len(fields) // 2
    now, old = fields[:half], fields[half:]
    for step in range(g.samples):
        if step % BLOCK == 0:
            _find_bounds(first, last, step, g.span, left, right)
        _advance(now, old, g, alpha, keep, left, right)
        old[source] += force * wavelet[step]
        for k in range(len(receiver_columns)):
            gathers[step, k] = old[receivers + receiver_columns[k]]
        now, old = old, now


@njit(cache=True)
def _offset(g: Geometry, row: int, column: int) -> int:
    """Where a cell of the padded grid lies in a field."""
    return (row + GHOSTS) * g.stride + MARGIN + column


@njit(cache=True)
def _fill_alpha(velocity: NDArray[np.float32], g: Geometry, alpha: NDArray[np.float32]) -> None:
    """One twelfth of alpha along each row of the map and the padding beside it; 0 beyond the padded grid."""
    dt, dx = np.float32(g.time_step), np.float32(g.spacing)
    for row in range(g.depth):
        at = row * g.span
        for column in range(g.columns):
            ratio = velocity[row, min(max(column - g.padding, 0), g.width - 1)] * dt / dx
            alpha[at + column] = ratio * ratio / np.float32(12)
        alpha[at + g.columns : at + g.span] = 0


@njit(cache=True)
def _fill_keep(kappa: NDArray[np.float64], g: Geometry, keep: NDArray[np.float32]) -> None:
    """1 - kappa along a row, for rows of the map (row 0) and for rows 1, 2, ... cells above or below it.

    The columns beside the map are damped by their distance from its sides in all rows, the corners included;
    the columns of the map by the row's distance from it.
    """
    for row in range(g.padding + 1):
        at = row * g.span
        inside = kappa[max(row - 1, 0)]
        for column in range(g.columns):
            beside = max(g.padding - 1 - column, column - g.padding - g.width)
            keep[at + column] = np.float32(1 - (kappa[beside] if beside >= 0 else inside))
        keep[at + g.columns : at + g.span] = 0


@njit(cache=True)
def _find_bounds(
    first: NDArray[np.float32],
    last: NDArray[np.float32],
    step: int,
    span: int,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """The columns of each row of tiles that count in the coming block of steps: left up to right.

    Both are whole vectors; left = right where no tile counts.
    """
    for a in range(len(first)):
        left[a], right[a] = span, 0
        for b in range(first.shape[1]):
            if first[a, b] < step + BLOCK and last[a, b] >= step:
                left[a] = min(left[a], b * TILE // LANES * LANES)
                right[a] = min(((b + 1) * TILE + LANES - 1) // LANES * LANES, span)
        left[a] = min(left[a], right[a])


@njit(cache=True)
def _advance(
    now: NDArray[np.float32],
    old: NDArray[np.float32],
    g: Geometry,
    alpha: NDArray[np.float32],
    keep: NDArray[np.float32],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """One step on all tiles that count: the field to come takes the place of the old one."""
    stride = uint64(g.stride)
    if right[0] > left[0] or right[-1] > left[-1]:
        _wrap_rows(now, g)
    for a in range(len(left)):
        count = right[a] - left[a]
        if count == 0:
            continue
        touches_edge = left[a] == 0 or right[a] == g.span
        for row in range(a * TILE, min((a + 1) * TILE, g.rows)):
            below_top = row - g.padding
            map_row = min(max(below_top, 0), g.depth - 1)
            away = max(-below_top, below_top - g.depth + 1, 0)
            _advance_row(
                now,
                old,
                uint64(_offset(g, row, left[a])),
                stride,
                alpha,
                uint64(map_row * g.span + left[a]),
                keep,
                uint64(away * g.span + left[a]),
                uint64(count),
            )
            if touches_edge:
                _wrap_columns(old, _offset(g, row, 0), g.columns)


@njit(fastmath=True, cache=True)
def _advance_row(
    now: NDArray[np.float32],
    old: NDArray[np.float32],
    at: np.uint64,
    stride: np.uint64,
    alpha: NDArray[np.float32],
    alpha_at: np.uint64,
    keep: NDArray[np.float32],
    keep_at: np.uint64,
    count: np.uint64,
) -> None:
    """The scheme along one row; all integers unsigned. This loop is where the time goes.

    It is the step of `fwi_lightning.physics.scheme` sorted so that it costs least and rounds least:
    p_next = p + (1 - kappa) (p - p_previous) + alpha/12 (16 near - far - 60 p).
    """
    _use_widest_vectors()  # type: ignore[call-arg]
    one, two = uint64(1), uint64(2)
    for j in range(count):
        i = at + j
        centre = now[i]
        near = (now[i - stride] + now[i + stride]) + (now[i - one] + now[i + one])
        far = (now[i - two * stride] + now[i + two * stride]) + (now[i - two] + now[i + two])
        laplacian = np.float32(16) * near - far - np.float32(60) * centre
        old[i] = centre + keep[keep_at + j] * (centre - old[i]) + alpha[alpha_at + j] * laplacian


@njit(cache=True)
def _wrap_rows(field: NDArray[np.float32], g: Geometry) -> None:
    """The rows beyond the top and the bottom: those of the opposite side."""
    for k in range(GHOSTS):
        for i in range(g.stride):
            field[k * g.stride + i] = field[(k + g.rows) * g.stride + i]
            field[(k + GHOSTS + g.rows) * g.stride + i] = field[(k + GHOSTS) * g.stride + i]


@njit(cache=True)
def _wrap_columns(field: NDArray[np.float32], at: int, columns: int) -> None:
    """The columns beyond the sides of the row that starts at `at`: those of the opposite side."""
    field[at - 2] = field[at + columns - 2]
    field[at - 1] = field[at + columns - 1]
    field[at + columns] = field[at]
    field[at + columns + 1] = field[at + 1]
