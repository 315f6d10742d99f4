"""The fields themselves, not only what the receivers hear of them: for the curvature of an inversion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics.cpu import _COUNTER, _aligned
from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.physics.shot import prepare
from fwi_lightning.physics.stepping import (
    BLOCK,
    Array,
    Geometry,
    advance,
    field_size,
    find_bounds,
    geometry_of,
    offset,
    table_size,
)
from fwi_lightning.physics.threads import kernel_threads
from fwi_lightning.physics.vectors import FLUSH_TO_ZERO, get_float_control, set_float_control, take_next
from fwi_lightning.survey import Survey


def wavefields(
    velocity: Tensor,
    survey: Survey,
    every: int = 1,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
) -> Tensor:
    """The pressure of each shot at every n-th time sample, in the map and, if asked for, in its padding.

    Args:
        velocity: (depth, width) in m/s, on the CPU, of values that `fwi_lightning.physics.simulate` takes.
        survey: The acquisition; its receivers do not matter.
        every: Time samples from one stored field to the next; sample 0 is the first. Default 1.
        rows: What is stored; below 0 and from the depth on those of the padding. Default: those of the map.
        columns: The same.

    Returns:
        (shots, rows, columns, ceil(time / every)) float32.

    Raises:
        UserError: If `every` is below 1 or a row or column beyond the padding.
    """
    if every < 1:
        raise UserError(f"wavefields takes every >= 1, got {every}.")
    places = [
        np.array(range(size) if asked is None else asked, dtype=np.int64)
        for size, asked in zip(survey.grid, (rows, columns), strict=True)
    ]
    for size, asked in zip(survey.grid, places, strict=True):
        if asked.min() < -survey.sponge or asked.max() >= size + survey.sponge:
            raise UserError(
                f"wavefields stores rows and columns of {-survey.sponge} to {size + survey.sponge - 1} here, got "
                f"{asked.min()} to {asked.max()}."
            )
    g = geometry_of(survey)
    threads = max(1, min(kernel_threads(), survey.shots))
    single = np.dtype(np.float32)
    stored = torch.zeros(survey.shots, *(len(asked) for asked in places), -(-survey.samples // every))
    _work(
        velocity.detach().float().contiguous().numpy(),
        velocity.detach().float().reshape(-1).numpy().min(),
        g,
        sponge_profile(survey),
        survey.wavelet().astype(single),
        np.array(survey.shot_columns),
        np.array(survey.receiver_columns),
        _aligned((threads, 2, field_size(g)), single),
        _aligned((threads, table_size(g)), single),
        stored.numpy(),
        every,
        places[0],
        places[1],
        np.zeros(1, _COUNTER),
    )
    return stored


@njit(parallel=True, cache=True)
def _work(
    velocity: Array,
    slowest: float,
    g: Geometry,
    profile: NDArray[np.float64],
    wavelet: Array,
    shot_columns: NDArray[np.int64],
    receiver_columns: NDArray[np.int64],
    fields: Array,
    tables: Array,
    stored: Array,
    every: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    counter: NDArray[np.void],
) -> None:
    """Each thread takes the next shot as soon as it is done with its last; arguments as in `physics.cpu`."""
    for thread in prange(fields.shape[0]):
        control: int = get_float_control()  # type: ignore[call-arg]
        set_float_control(control | np.uint32(FLUSH_TO_ZERO))
        task: int = take_next(counter)
        while task < len(shot_columns):
            shot = prepare(
                velocity,
                slowest,
                g,
                profile,
                wavelet,
                shot_columns[task],
                receiver_columns,
                False,
                tables[thread],
            )
            _store(shot, fields[thread], stored[task], every, rows, columns)
            task = take_next(counter)
        set_float_control(control)


@njit
def _store(shot, fields, stored, every, rows, columns):  # type: ignore[no-untyped-def]
    """One shot through time, its field stored on the way."""
    g = shot.g
    fields[:] = 0
    now, old = fields[0], fields[1]
    for step in range(g.samples):
        if step % BLOCK == 0:
            find_bounds(shot.times[0], shot.times[1], step, g.column_count, shot.bounds)
        advance(now, old, g, shot.tables, shot.bounds, None, None)
        old[shot.source] += shot.force * shot.wavelet[step]
        now, old = old, now
        if step % every == 0:
            for row in range(len(rows)):
                at = offset(g, g.padding + rows[row], g.padding)
                for column in range(len(columns)):
                    stored[row, column, step // every] = now[at + columns[column]]
