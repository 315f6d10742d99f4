"""The simulation and its gradient on a GPU: one kernel a time step, for many (sample, shot) at once.

The scheme, the adjoint and what is left out are those of `fwi_lightning.physics.cpu`. What makes it fast:

1. A step is one launch (`fwi_lightning.physics.kernels`): stencil, sponge, source, record and what the gradient needs.
2. Samples are done in chunks whose fields stay in the cache of the GPU.
3. All launches of a chunk are recorded once, as a CUDA graph, and replayed on other maps: Python takes longer to
   launch a step than the GPU to do it.
4. In float32, tiles return at once before the wave can have reached them, and once nothing in them can reach a receiver
   any more (`fwi_lightning.physics.arrivals`).

Graphs keep the memory they work on, and share it, since one runs at a time. For OpenFWI in float32 a chunk is of 5
samples or fewer; for 5 a simulation takes 40 MB and a gradient 1.1 GB: 32 states of the two fields, 0.7 GB, and the
Laplacians of 32 steps, 0.35 GB. As many graphs as `GRAPHS` are kept, each for one survey, type, device and number of
samples in a chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

try:
    from fwi_lightning.physics.batch import Batch
except ImportError as error:  # there is no Triton for this machine
    _missing: ImportError | None = error
else:
    _missing = None

CACHE = 24 * 2**20
"""Bytes of fields in a chunk: half the cache of an H200, which is of two halves that copy from each other."""

GRAPHS = 32
"""Graphs that are kept: those used last. A loss that draws one of five shots uses ten."""

Task = Literal["forward", "illuminate", "backward"]

_turn = threading.Lock()
"""Held by the thread that uses the graphs: their memory serves one at a time."""


def forward(velocity: Tensor, slowest: Tensor, survey: Survey) -> Tensor:
    """The gathers over maps that are known to be good.

    Args:
        velocity: (samples, depth, width), m/s, float32 or float64: the type in which all is computed.
        slowest: (samples,), m/s, what the sponge is proportional to.
        survey: The acquisition.

    Returns:
        (samples, shots, time, receivers).

    Raises:
        UserError: If there is no Triton.
    """
    return _run("forward", survey, [velocity, slowest], [survey.gathers_shape])[0]


def illuminate(velocity: Tensor, slowest: Tensor, survey: Survey) -> tuple[Tensor, Tensor]:
    """Gathers and illumination; arguments as `forward`.

    Returns:
        Gathers (samples, shots, time, receivers); illumination (samples, depth, width), see
        `fwi_lightning.physics.illuminate`.

    Raises:
        UserError: If there is no Triton.
    """
    gathers, illumination = _run("illuminate", survey, [velocity, slowest], [survey.gathers_shape, survey.grid])
    return gathers, illumination


def backward(velocity: Tensor, slowest: Tensor, survey: Survey, residual: Tensor) -> Tensor:
    """The gradient of sum(gathers * residual) with respect to the velocity, the sponge held constant.

    Args:
        velocity: As `forward`.
        slowest: As `forward`.
        survey: As `forward`.
        residual: (samples, shots, time, receivers): the gradient with respect to the gathers.

    Returns:
        (samples, depth, width), per m/s.

    Raises:
        UserError: If there is no Triton.
    """
    return _run("backward", survey, [velocity, slowest, residual], [survey.grid])[0]


def _run(task: Task, survey: Survey, inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Do a batch, a chunk at a time.

    Args:
        task: Which method of `Batch`.
        survey: The acquisition.
        inputs: The method's arguments for all samples, velocity first.
        shapes: The shapes of its results, for one sample.

    Returns:
        The results for all samples.
    """
    if _missing is not None:
        raise UserError(
            f"simulating on a GPU needs Triton, which does not load here ({_missing}): install PyTorch for CUDA on "
            "Linux, which brings it along, or simulate on the CPU with velocity.cpu()."
        )
    velocity, samples = inputs[0], len(inputs[0])
    guard = torch.cuda.device(velocity.device) if velocity.is_cuda else nullcontext()
    # What is kept for later calls must not become inference tensors, which nothing may write to later on.
    with _turn, guard, torch.inference_mode(False), torch.no_grad():
        results = tuple(velocity.new_empty(samples, *shape) for shape in shapes)
        size = _chunk_size(samples, _batch(survey, velocity.dtype, velocity.device).bytes_per_sample)
        for start in range(0, samples, size):
            chunk = slice(start, start + size)
            do = _method(task, survey, size, velocity)
            for result, found in zip(results, do(*(given[chunk] for given in inputs)), strict=True):
                result[chunk] = found
    return results


def _chunk_size(samples: int, bytes_per_sample: int) -> int:
    """Samples to a chunk: as many as fit the cache, and then as few as do in the same number of chunks.

    A batch that is smaller than that is a chunk of the next power of 2, so that there are few sizes to record.
    """
    most = max(1, CACHE // bytes_per_sample)
    chunks = max(1, -(-samples // most))
    if chunks == 1:
        return min(most, 1 << max(samples - 1, 0).bit_length())
    return -(-samples // chunks)


def _method(task: Task, survey: Survey, size: int, velocity: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """The method of `Batch`: a graph of it, or itself for Triton's interpreter, which has tensors on the CPU."""
    if velocity.is_cuda:
        return _graph(task, survey, size, velocity.dtype, velocity.device)
    method: Callable[..., tuple[Tensor, ...]] = getattr(_batch(survey, velocity.dtype, velocity.device), task)
    return method


@lru_cache(maxsize=GRAPHS)
def _batch(survey: Survey, dtype: torch.dtype, device: torch.device) -> Batch:
    return Batch(survey, dtype, device)


@lru_cache(maxsize=GRAPHS)
def _graph(task: Task, survey: Survey, size: int, dtype: torch.dtype, device: torch.device) -> _Graph:
    shapes = [(size, *survey.grid), (size,)]
    if task == "backward":
        shapes.append((size, *survey.gathers_shape))
    method = getattr(_batch(survey, dtype, device), task)
    return _Graph(method, [torch.ones(shape, dtype=dtype, device=device) for shape in shapes])


@lru_cache
def _pool(device: torch.device) -> tuple[Any, torch.cuda.Event]:
    """Memory that all graphs of a device share, and the moment when the last of them was done with it."""
    return torch.cuda.graph_pool_handle(), torch.cuda.Event()


class _Graph:
    """The launches of a function, recorded once and replayed on other numbers.

    All graphs of a device work on the same memory, each when the one before is done; results are copied out at once.

    Args:
        function: Tensors to tensors; it must not look at their numbers.
        inputs: What it is recorded on, any numbers. They are kept, and overwritten by each call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> None:
        self.function = function  # the graph reads tensors that belong to it
        self.inputs = inputs
        function(*inputs)  # compiles the kernels and allocates what libraries keep, neither of which can be recorded
        self.graph = torch.cuda.CUDAGraph()
        pool, self.done = _pool(inputs[0].device)
        torch.cuda.synchronize()  # the memory may be in use on another stream
        # Other threads, such as one that pins memory for a data loader, may use the GPU meanwhile.
        with torch.cuda.graph(self.graph, pool=pool, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
            self.outputs = function(*inputs)

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The results for the samples given, at most as many as were recorded; the rest is done on old numbers."""
        stream, samples = torch.cuda.current_stream(), len(given[0])
        stream.wait_event(self.done)  # the last call may have been on another stream
        for mine, new in zip(self.inputs, given, strict=True):
            mine[:samples].copy_(new)
        self.graph.replay()
        results = tuple(output[:samples].clone() for output in self.outputs)
        self.done.record(stream)
        return results
