"""The simulation and its gradient on a CPU: each thread takes a (sample, shot) of its own through time.

A shot is two fields, the present one and the one a step back; every step overwrites the older one. What makes it
fast, most important first:

1. Cells are left out before the wave can have reached them, and once nothing in them can reach a receiver any
   more (`fwi_lightning.physics.reach`).
2. Four rows are computed at once, a vector register of each at a time (`fwi_lightning.physics.vectors`).
3. Only the two fields are read from the far caches. The coefficients are tables of single rows
   (`fwi_lightning.physics.stepping`).
4. For the gradient a shot is simulated again and its fields are stored at every `INTERVAL`-th step only; the steps
   between are computed once more, a block at a time that stays in the cache. That is faster than to write all steps
   to memory and to read them back, and takes 70 MB a thread, however large the batch.

The gradient is that of the discrete scheme, not of the equation behind it. With K for the difference Laplacian,
a = alpha / 12 and c = 1 - kappa, the scheme reads p+ = p + c (p - p-) + a K p + force w. Its transpose, for the
adjoint field m = a * lambda, is the same step backwards in time: m = m+ + c (m+ - m++) + a K m+ + a residual, because
K is symmetric and all else diagonal. Then dJ/da = sum over steps of lambda+ K p, hence dJ/dv = 2/v sum of m+ K p.
docs/physics.md has the derivation. float64 computes every cell in every step: it is the reference for float32.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.physics.shot import INTERVAL, prepare, run, run_back, take_energy, take_gradient
from fwi_lightning.physics.stepping import LINE, Array, Geometry, element, field_size, geometry_of, table_size
from fwi_lightning.physics.threads import kernel_threads
from fwi_lightning.physics.vectors import FLUSH_TO_ZERO, get_float_control, set_float_control, take_next
from fwi_lightning.survey import Survey

_SOURCES = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
_COUNTER = np.dtype([("next_" + hashlib.sha256(_SOURCES).hexdigest(), np.int64)])
"""Type of the kernel's counter, named after the sources of the kernel.

numba keeps compiled code on disk for each combination of argument types, and renews it when the file of the
function changes, but not when a file does that it imports from. Only `_work`, which takes the counter, is kept
on disk: everything else is compiled into it.
"""


def forward(velocity: Tensor, slowest: Tensor, survey: Survey) -> Tensor:
    """The gathers over maps that are known to be good.

    Args:
        velocity: (samples, depth, width), m/s, float32 or float64: the type in which all is computed.
        slowest: (samples,), m/s, what the sponge is proportional to.
        survey: The acquisition.

    Returns:
        (samples, shots, time, receivers).
    """
    gathers = velocity.new_zeros(len(velocity), *survey.gathers_shape)
    _run(velocity, slowest, survey, gathers=gathers)
    return gathers


def illuminate(velocity: Tensor, slowest: Tensor, survey: Survey) -> tuple[Tensor, Tensor]:
    """Gathers and illumination; arguments as `forward`.

    Returns:
        Gathers (samples, shots, time, receivers); illumination (samples, depth, width), see
        `fwi_lightning.physics.illuminate`.
    """
    gathers = velocity.new_zeros(len(velocity), *survey.gathers_shape)
    energy = velocity.new_empty(len(velocity), survey.shots, *survey.grid)
    _run(velocity, slowest, survey, gathers=gathers, energy=energy)
    return gathers, energy.sum(dim=1)


def backward(velocity: Tensor, slowest: Tensor, survey: Survey, residual: Tensor) -> Tensor:
    """The gradient of sum(gathers * residual) with respect to the velocity, the sponge held constant.

    Args:
        velocity: As `forward`.
        slowest: As `forward`.
        survey: As `forward`.
        residual: (samples, shots, time, receivers): the gradient with respect to the gathers.

    Returns:
        (samples, depth, width), per m/s. Summed over the shots in their order: it depends neither on the batch nor on
        the number of threads.
    """
    gradient = velocity.new_empty(len(velocity), survey.shots, *survey.grid)
    _run(velocity, slowest, survey, residual=residual.contiguous(), gradient=gradient)
    return gradient.sum(dim=1)


def _run(
    velocity: Tensor,
    slowest: Tensor,
    survey: Survey,
    gathers: Tensor | None = None,
    energy: Tensor | None = None,
    residual: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """Do all (sample, shot) of a batch; arguments as `_work`."""
    g = geometry_of(survey)
    threads = max(1, min(kernel_threads(), len(velocity) * survey.shots))
    dtype, size = velocity.numpy().dtype, field_size(g)
    blocks = -(-survey.samples // INTERVAL)
    back = residual is not None
    _work(
        velocity.numpy(),
        slowest.numpy(),
        g,
        sponge_profile(survey),
        survey.wavelet().astype(dtype),
        np.array(survey.shot_columns),
        np.array(survey.receiver_columns),
        _aligned((threads, 4 if back else 2, size), dtype),
        _aligned((threads, table_size(g)), dtype),
        _aligned((threads, size), dtype) if back or energy is not None else None,
        _aligned((threads, blocks, 2, size), dtype) if back else None,
        _aligned((threads, INTERVAL, size), dtype) if back else None,
        _numpy(gathers),
        _numpy(energy),
        _numpy(residual),
        _numpy(gradient),
        np.zeros(1, _COUNTER),
    )


def _numpy(tensor: Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else tensor.numpy()


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Memory that starts on a cache line; not initialised."""
    size = math.prod(shape)
    memory = np.empty(size + LINE, dtype)
    start = -(memory.ctypes.data // memory.itemsize) % LINE
    return memory[start : start + size].reshape(shape)


@njit(parallel=True, cache=True)
def _work(
    velocity: Array,
    slowest: Array,
    g: Geometry,
    profile: NDArray[np.float64],
    wavelet: Array,
    shot_columns: NDArray[np.int64],
    receiver_columns: NDArray[np.int64],
    fields: Array,
    tables: Array,
    images: Array | None,
    states: Array | None,
    laplacians: Array | None,
    gathers: Array | None,
    energy: Array | None,
    residual: Array | None,
    gradient: Array | None,
    counter: NDArray[np.void],
) -> None:
    """Each thread takes the next (sample, shot) as soon as it is done with its last.

    Args:
        velocity: (samples, depth, width), m/s.
        slowest: (samples,), m/s.
        g: The padded grid.
        profile: (padding,), the damping for each m/s of the slowest velocity.
        wavelet: (time,).
        shot_columns: (shots,), in the map.
        receiver_columns: (receivers,), in the map.
        fields: (threads, 2 or 4, field), scratch memory.
        tables: (threads, ...), scratch memory for the coefficients.
        images: (threads, field), scratch memory, where there is `energy` or `residual`.
        states: (threads, blocks, 2, field), scratch memory for the fields at every `INTERVAL`-th step, where there is
            `residual`.
        laplacians: (threads, `INTERVAL`, field), scratch memory, where there is `residual`.
        gathers: (samples, shots, time, receivers), the record, or None.
        energy: (samples, shots, depth, width), the illumination, or None.
        residual: (samples, shots, time, receivers), the gradient with respect to the record, or None to simulate.
        gradient: (samples, shots, depth, width), the gradient with respect to the velocity, where there is `residual`.
        counter: One zero: the next (sample, shot).
    """
    tasks = velocity.shape[0] * shot_columns.shape[0]
    for thread in prange(fields.shape[0]):
        control: int = get_float_control()  # type: ignore[call-arg]
        set_float_control(control | np.uint32(FLUSH_TO_ZERO))
        task: int = take_next(counter)
        while task < tasks:
            _do(
                task,
                thread,
                velocity,
                slowest,
                g,
                profile,
                wavelet,
                shot_columns,
                receiver_columns,
                fields,
                tables,
                images,
                states,
                laplacians,
                gathers,
                energy,
                residual,
                gradient,
            )
            task = take_next(counter)
        set_float_control(control)


@njit
def _do(
    task: int,
    thread: int,
    velocity: Array,
    slowest: Array,
    g: Geometry,
    profile: NDArray[np.float64],
    wavelet: Array,
    shot_columns: NDArray[np.int64],
    receiver_columns: NDArray[np.int64],
    fields: Array,
    tables: Array,
    images: Any,
    states: Any,
    laplacians: Any,
    gathers: Any,
    energy: Any,
    residual: Any,
    gradient: Any,
) -> None:
    """One (sample, shot); arguments as `_work`. Branches on None are taken when this is compiled."""
    sample, number = task // len(shot_columns), task % len(shot_columns)
    shot = prepare(
        velocity[sample],
        slowest[sample],
        g,
        profile,
        wavelet,
        shot_columns[number],
        receiver_columns,
        energy is None,
        tables[thread],
    )
    if images is not None:
        images[thread] = 0
    if residual is None:
        run(shot, fields[thread], None, element(images, thread), element(gathers, (sample, number)))
        if energy is not None:
            take_energy(shot, images[thread], energy[sample, number])
    else:
        run(shot, fields[thread], states[thread], None, None)
        at_source = run_back(
            shot, fields[thread], states[thread], laplacians[thread], residual[sample, number], images[thread]
        )
        take_gradient(shot, velocity[sample], images[thread], at_source, gradient[sample, number])
