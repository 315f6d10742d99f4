"""One shot through time, and its gradient back: what a thread does with one task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fwi_lightning.physics.reach import TILE
from fwi_lightning.physics.stepping import (
    BLOCK,
    EVERY,
    HEARD,
    REACHED,
    Array,
    Coefficients,
    Geometry,
    advance,
    element,
    fill_coefficients,
    find_bounds,
    offset,
    when_to_compute,
)

INTERVAL = 2 * BLOCK
"""Steps between two stored states of a shot, for its gradient: the Laplacians of so many steps fit a cache."""


class Shot(NamedTuple):
    """All that does not change while a shot runs."""

    g: Geometry
    tables: Coefficients
    times: tuple[NDArray[np.float32], NDArray[np.float32]]
    """The first and the last step at which each tile is computed."""
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]]
    """The columns of each row of tiles that are computed just now."""
    wavelet: Array
    shot_column: int
    """Column of the source in the map."""
    force: float
    """(v dt)^2 at the source: what a wavelet of 1 adds to the field."""
    source: int
    """Where the source lies in a field."""
    columns: NDArray[np.int64]
    """Columns of the receivers in the padded grid."""
    receivers: NDArray[np.int64]
    """Where the receivers lie in a field."""
    weights: Array
    """One twelfth of alpha at the receivers."""


@njit
def prepare(
    velocity: Array,
    slowest: float,
    g: Geometry,
    profile: NDArray[np.float64],
    wavelet: Array,
    shot_column: int,
    receiver_columns: NDArray[np.int64],
    hears: bool,
    memory: Array,
) -> Shot:
    """Coefficients, travel times and places of one shot.

    Args:
        velocity: (depth, width), m/s; in float64 all tiles are computed in all steps.
        slowest: m/s, what the sponge is proportional to.
        g: The padded grid.
        profile: (padding,), the damping for each m/s of the slowest velocity.
        wavelet: (time,).
        shot_column: In the map.
        receiver_columns: (receivers,), in the map.
        hears: Whether only what can reach a receiver within the record counts.
        memory: Where the tables go.

    Returns:
        The shot.
    """
    tables = fill_coefficients(velocity, slowest, profile, g, memory)
    which = EVERY if velocity.itemsize == 8 else HEARD if hears else REACHED
    place = (g.shot_row, shot_column + g.padding)
    times = when_to_compute(velocity, g, place, receiver_columns, which)
    bounds = (np.zeros(len(times[0]), np.int64), np.zeros(len(times[0]), np.int64))
    step_length = velocity[g.shot_row - g.padding, shot_column] * velocity.dtype.type(g.time_step)
    row = offset(g, g.receiver_row, g.padding)
    weights = tables.alpha[tables.alpha_rows[g.receiver_row] + g.padding + receiver_columns]
    return Shot(
        g,
        tables,
        times,
        bounds,
        wavelet,
        shot_column,
        step_length * step_length,
        offset(g, place[0], place[1]),
        g.padding + receiver_columns,
        row + receiver_columns,
        weights,
    )


@njit
def run(shot: Shot, fields: Array, states: Array | None, image: Array | None, gathers: Array | None) -> None:
    """The shot from its beginning to its end.

    Args:
        shot: The shot.
        fields: (2, field), scratch memory.
        states: (blocks, 2, field), receives the fields at every `INTERVAL`-th step, or None.
        image: A field that the energy of the Laplacian is added to, or None.
        gathers: (time, receivers), the record, or None.
    """
    fields[:] = 0
    now, old = fields[0], fields[1]
    for block in range(-(-shot.g.samples // INTERVAL)):
        if states is not None:
            states[block, 0], states[block, 1] = now, old
        now, old = _run_block(shot, block, now, old, None, image, gathers)


@njit
def _run_block(
    shot: Shot,
    block: int,
    now: Array,
    old: Array,
    laplacians: Array | None,
    image: Array | None,
    gathers: Array | None,
) -> tuple[Array, Array]:
    """The steps of a block; returns the present field and the one a step back.

    Args:
        shot: The shot.
        block: Number of the block.
        now: The present field.
        old: The field a step back.
        laplacians: (`INTERVAL`, field), receives the Laplacian of each step, or None.
        image: As `run`.
        gathers: As `run`.
    """
    first, last = shot.times
    start = block * INTERVAL
    for step in range(start, min(start + INTERVAL, shot.g.samples)):
        if step % BLOCK == 0:
            find_bounds(first, last, step, shot.g.column_count, shot.bounds)
        if image is not None:
            # The kernel adds the square of K p; at the source it is that of K p + 12 dx^2 w.
            push = 12 * shot.g.spacing**2 * shot.wavelet[step]
            image[shot.source] += push * (push + 2 * _laplacian_at(now, shot.source, shot.g.stride))
        advance(now, old, shot.g, shot.tables, shot.bounds, element(laplacians, step - start), image)
        old[shot.source] += shot.force * shot.wavelet[step]
        if gathers is not None:
            for k in range(len(shot.receivers)):
                gathers[step, k] = old[shot.receivers[k]]
        now, old = old, now
    return now, old


@njit
def _laplacian_at(field: Array, at: int, stride: int) -> float:
    """The difference Laplacian of one cell away from the outer edge: 16 near - far - 60 p."""
    near = field[at - 1] + field[at + 1] + field[at - stride] + field[at + stride]
    far = field[at - 2] + field[at + 2] + field[at - 2 * stride] + field[at + 2 * stride]
    return 16 * near - far - 60 * field[at]


@njit
def run_back(shot: Shot, fields: Array, states: Array, laplacians: Array, residual: Array, image: Array) -> float:
    """The adjoint field from the end of the record to its beginning, against the field itself.

    Args:
        shot: The shot.
        fields: (4, field), scratch memory.
        states: (blocks, 2, field), as `run` fills them.
        laplacians: (`INTERVAL`, field), scratch memory.
        residual: (time, receivers), the gradient with respect to the record.
        image: A field of zeros; receives the sum over steps of the adjoint field times the Laplacian.

    Returns:
        The sum over steps of the adjoint field at the source times the wavelet.
    """
    first, last = shot.times
    fields[:] = 0
    ahead, beyond = fields[2], fields[3]  # the adjoint field one and two steps on
    heard = shot.g.receiver_row // TILE
    at_source = 0.0
    for block in range(len(states) - 1, -1, -1):
        start, stop = block * INTERVAL, min((block + 1) * INTERVAL, shot.g.samples)
        fields[0], fields[1] = states[block, 0], states[block, 1]
        _run_block(shot, block, fields[0], fields[1], laplacians, None, None)
        for step in range(stop - 1, start - 1, -1):
            if step == stop - 1 or step % BLOCK == BLOCK - 1:
                find_bounds(first, last, step, shot.g.column_count, shot.bounds)
            laplacian = laplacians[step - start]
            advance(ahead, beyond, shot.g, shot.tables, shot.bounds, laplacian, image)
            ahead, beyond = beyond, ahead
            left, right = shot.bounds[0][heard], shot.bounds[1][heard]
            for k in range(len(shot.receivers)):
                at = shot.receivers[k]
                push = shot.weights[k] * residual[step, k]
                ahead[at] += push
                if left <= shot.columns[k] < right:  # elsewhere the field is at rest and no Laplacian was stored
                    image[at] += push * laplacian[at]
            at_source += ahead[shot.source] * shot.wavelet[step]
    return at_source


@njit
def take_energy(shot: Shot, image: Array, energy: Array) -> None:
    """The illumination of the cells of the map, (depth, width), from the image that `run` has made."""
    g = shot.g
    unit = 1 / (12 * g.spacing**2) ** 2
    for row in range(g.depth):
        at = offset(g, row + g.padding, g.padding)
        for column in range(g.width):
            energy[row, column] = unit * image[at + column]


@njit
def take_gradient(shot: Shot, velocity: Array, image: Array, at_source: float, gradient: Array) -> None:
    """The gradient with respect to the velocity, from what `run_back` has made.

    What belongs to the padding is added to the edge cells that it repeats.

    Args:
        shot: The shot.
        velocity: (depth, width), m/s.
        image: The sum over steps of the adjoint field times the Laplacian.
        at_source: The sum over steps of the adjoint field at the source times the wavelet.
        gradient: (depth, width), the result.
    """
    g = shot.g
    total = np.zeros((g.depth, g.width))
    for row in range(g.rows):
        inside = min(max(row - g.padding, 0), g.depth - 1)
        at = offset(g, row, 0)
        for column in range(g.columns):
            total[inside, min(max(column - g.padding, 0), g.width - 1)] += image[at + column]
    # alpha grows with v^2, and so does the force: 2 v dt^2 = 24 dx^2 / v times the twelfth of alpha.
    total[g.shot_row - g.padding, shot.shot_column] += 12 * g.spacing**2 * at_source
    gradient[:] = 2 * total / velocity
