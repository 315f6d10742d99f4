# mypy: disable-error-code="no-untyped-def"
# Triton reads annotations of its own in these functions and refuses all others.
"""The Triton kernels of the GPU back end: one step of the wave equation, one round of travel times."""

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

GHOSTS = 2
"""Rows and columns beside the field that repeat those of the opposite side: the reach of the difference scheme."""

_GHOSTS = tl.constexpr(GHOSTS)


# The compiler must not know how the fields are aligned: it would give each thread four neighbouring cells, to load
# them at once. The neighbours to the left and right, which cannot be loaded so, would then cost four times as much.
@triton.jit(do_not_specialize=["step"], do_not_specialize_on_alignment=["now", "old", "laplacian", "image"])
def advance(
    now,
    old,
    alpha,
    keep,
    first,
    last,
    inject,
    record,
    laplacian,
    image,
    step,
    DEPTH: tl.constexpr,  # noqa: N803 - Triton's custom for what a kernel is compiled for
    WIDTH: tl.constexpr,  # noqa: N803
    PADDING: tl.constexpr,  # noqa: N803
    SAMPLES: tl.constexpr,  # noqa: N803
    SHOTS: tl.constexpr,  # noqa: N803
    LINES: tl.constexpr,  # noqa: N803
    INJECT_ROW: tl.constexpr,  # noqa: N803
    RECORD_ROW: tl.constexpr,  # noqa: N803
    ORIGIN: tl.constexpr,  # noqa: N803
    STRIDE: tl.constexpr,  # noqa: N803
    FIELD: tl.constexpr,  # noqa: N803
    TILE_ROWS: tl.constexpr,  # noqa: N803
    TILE_COLUMNS: tl.constexpr,  # noqa: N803
):
    """One step on one tile of one (sample, shot): the field to come takes the place of the old one.

    It is the step of `fwi_lightning.physics.scheme`, sorted as on the CPU, with the source inside the bracket, since
    (v dt)^2 w = alpha/12 (12 dx^2 w):

        p_next = p + (1 - kappa) (p - p_previous) + alpha/12 (16 near - far - 60 p + injected)

    On the way it does one thing more, which two arrays choose (None or fields):

        laplacian  image
        None       None   nothing
        array      None   laplacian = bracket
        None       array  image += bracket ^ 2
        array      array  image += p_next * laplacian

    A tile is left as it is before its first and after its last step. Programs: (tiles across, tiles down, samples x
    shots).

    Args:
        now: (samples x shots, FIELD), the present fields.
        old: As now, the fields a step back; overwritten.
        alpha: (samples, depth, width), one twelfth of alpha.
        keep: (samples, padding + 1), 1 - kappa by the distance from the map in cells.
        first: (samples x shots, tiles down, tiles across) int32, the first step that counts.
        last: As first, the last step that counts.
        inject: (LINES, time, width), what is injected along one row of the map.
        record: (samples x shots, time, width), receives one row of the map, or None.
        laplacian: None, or as now.
        image: None, or as now.
        step: Number of the step.
        DEPTH: Rows of the map.
        WIDTH: Columns of the map.
        PADDING: Cells around the map.
        SAMPLES: Steps of the record.
        SHOTS: Shots of a sample.
        LINES: Lines to inject: one for each shot, or for each shot of each sample.
        INJECT_ROW: Their row in the padded grid.
        RECORD_ROW: Row of the record in the padded grid.
        ORIGIN: Where the first cell lies in a field.
        STRIDE: From a row to the next in a field.
        FIELD: Numbers of a field in memory.
        TILE_ROWS: Rows of a tile, a power of 2.
        TILE_COLUMNS: Columns of a tile, a power of 2.
    """
    across, down, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tile = (pair * tl.num_programs(1) + down) * tl.num_programs(0) + across
    if (step < tl.load(first + tile)) | (step > tl.load(last + tile)):
        return

    rows = down * TILE_ROWS + tl.arange(0, TILE_ROWS)[:, None]
    columns = across * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)[None, :]
    here = pair.to(tl.int64) * FIELD + (ORIGIN + rows * STRIDE + columns)
    now += here
    old += here
    centre = tl.load(now)
    near = (tl.load(now - STRIDE) + tl.load(now + STRIDE)) + (tl.load(now - 1) + tl.load(now + 1))
    far = (tl.load(now - 2 * STRIDE) + tl.load(now + 2 * STRIDE)) + (tl.load(now - 2) + tl.load(now + 2))
    bracket = near * 16 - far - centre * 60

    row, column = rows - PADDING, columns - PADDING  # in the map
    on_map = (column >= 0) & (column < WIDTH)
    if down == INJECT_ROW // TILE_ROWS:
        line = inject + ((pair % LINES) * SAMPLES + step) * WIDTH
        bracket += tl.where(rows == INJECT_ROW, tl.load(line + column, mask=on_map, other=0), 0)

    sample = pair // SHOTS
    inside = tl.minimum(tl.maximum(row, 0), DEPTH - 1) * WIDTH + tl.minimum(tl.maximum(column, 0), WIDTH - 1)
    weight = tl.load(alpha + sample * (DEPTH * WIDTH) + inside)
    beside = tl.minimum(tl.maximum(tl.maximum(-column, column - (WIDTH - 1)), 0), PADDING)
    beyond = tl.minimum(tl.maximum(tl.maximum(-row, row - (DEPTH - 1)), 0), PADDING)
    table = keep + sample * (PADDING + 1)
    kept = tl.where(beside > 0, tl.load(table + beside), tl.load(table + beyond))  # the strips beside have the corners
    following = centre + kept * (centre - tl.load(old)) + weight * bracket

    height: tl.constexpr = DEPTH + 2 * PADDING
    length: tl.constexpr = WIDTH + 2 * PADDING
    exists = (rows < height) & (columns < length)
    tl.store(old, following, mask=exists)
    if across == 0:
        tl.store(old + length, following, mask=exists & (columns < _GHOSTS))
    if (across + 1) * TILE_COLUMNS > length - _GHOSTS:
        tl.store(old - length, following, mask=exists & (columns >= length - _GHOSTS))
    if down == 0:
        tl.store(old + height * STRIDE, following, mask=exists & (rows < _GHOSTS))
    if (down + 1) * TILE_ROWS > height - _GHOSTS:
        tl.store(old - height * STRIDE, following, mask=exists & (rows >= height - _GHOSTS))

    if record is not None:  # noqa: SIM102 - decided by the compiler, the next by each program
        if down == RECORD_ROW // TILE_ROWS:
            line = record + (pair * SAMPLES + step) * WIDTH
            tl.store(line + (column + rows * 0), following, mask=(rows == RECORD_ROW) & on_map)
    # Laplacians pass through the cache once: they should be the first to leave it.
    if image is not None:
        if laplacian is not None:
            product = following * tl.load(laplacian + here, eviction_policy="evict_first")
        else:
            product = bracket * bracket
        tl.store(image + here, tl.load(image + here) + product, mask=exists)
    elif laplacian is not None:
        tl.store(laplacian + here, bracket, mask=exists, eviction_policy="evict_first")


@triton.jit
def relax(
    times,
    slowness,
    result,
    size,
    FIELDS: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    DIAGONAL: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One round of travel times on a periodic grid of tiles: all at once, each from its neighbours.

    The differences are those of `fwi_lightning.physics.reach.travel_times`. Programs: one for each BLOCK of times.

    Args:
        times: (samples, fields, rows, columns) float32, in steps.
        slowness: (samples, rows, columns) float32, steps to cross a tile.
        result: As times.
        size: Elements of times.
        FIELDS: Fields of a sample.
        ROWS: Tiles down.
        COLUMNS: Tiles across.
        DIAGONAL: The square root of 2.
        BLOCK: Elements of a program, a power of 2.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = at < size
    at = tl.where(exists, at, 0)
    column = at % COLUMNS
    row = at // COLUMNS % ROWS
    left = tl.where(column == 0, COLUMNS - 1, -1)
    right = tl.where(column == COLUMNS - 1, 1 - COLUMNS, 1)
    above = tl.where(row == 0, ROWS - 1, -1) * COLUMNS
    below = tl.where(row == ROWS - 1, 1 - ROWS, 1) * COLUMNS

    step = tl.load(slowness + (at // (FIELDS * ROWS * COLUMNS) * ROWS + row) * COLUMNS + column)
    times += at
    along = tl.minimum(tl.load(times + left), tl.load(times + right))
    across = tl.minimum(tl.load(times + above), tl.load(times + below))
    corner_above = tl.minimum(tl.load(times + above + left), tl.load(times + above + right))
    corner_below = tl.minimum(tl.load(times + below + left), tl.load(times + below + right))
    time = tl.minimum(tl.load(times), tl.minimum(along, across) + step)
    time = tl.minimum(time, tl.minimum(corner_above, corner_below) + DIAGONAL * step)
    gap = along - across
    slanted = 0.5 * (along + across + tl.sqrt(tl.maximum(2 * step * step - gap * gap, 0)))
    time = tl.minimum(time, tl.where(tl.abs(gap) < step, slanted, time))
    tl.store(result + at, time, mask=exists)
