"""A few numbers that stand for a sample, so that copies are found without comparing every two samples.

Two samples whose distance is at most d have signatures whose distance is at most d: no pair that is closer than a
threshold can be missed by looking at the signatures first.

- Of a map, the means of blocks of cells: by the Cauchy-Schwarz inequality the difference of two means is at most the
  rms difference within the block.
- Of gathers, the norms of blocks of samples, relative to the norm of all: by the triangle inequality the difference of
  two norms is at most the norm of the difference. Means would say nothing: waves have none.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

VELOCITY_BLOCKS = (5, 5)
"""Blocks of a map along depth and width."""

GATHERS_BLOCKS = (5, 4, 2)
"""Blocks of gathers along shots, time and receivers."""

TINY = float(np.finfo(np.float32).tiny)
"""Least energy to divide by."""


def digest(array: NDArray[Any]) -> NDArray[np.uint64]:
    """Two numbers, (2,), that are the same for the same values and, but for a chance of 2^-128, for no others."""
    values = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()
    return np.frombuffer(values, np.uint64)


def velocity_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """Shape of the signatures of maps on a grid: `VELOCITY_BLOCKS`, fewer where an axis is shorter."""
    return min(VELOCITY_BLOCKS[0], grid[0]), min(VELOCITY_BLOCKS[1], grid[1])


def gathers_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape of the signatures of gathers of a shape: `GATHERS_BLOCKS`, fewer where an axis is shorter."""
    return min(GATHERS_BLOCKS[0], shape[0]), min(GATHERS_BLOCKS[1], shape[1]), min(GATHERS_BLOCKS[2], shape[2])


def velocity_signature(velocity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signature of a map; its distance is at most the rms difference.

    Args:
        velocity: (depth, width), m/s.

    Returns:
        `velocity_shape`, m/s; that of the mirror image has its last axis reversed.
    """
    depth, width = velocity.shape
    signature = np.empty(velocity_shape((depth, width)), np.float32)
    for i, rows in enumerate(_blocks(depth, signature.shape[0])):
        for j, columns in enumerate(_blocks(width, signature.shape[1])):
            block = velocity[rows, columns]
            signature[i, j] = block.mean(dtype=np.float64) * np.sqrt(block.size / velocity.size)
    return signature


def gathers_signature(gathers: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Signature of gathers; its distance is at most that of the gathers scaled to norm 1.

    Args:
        gathers: (shots, time, receivers), not all zeros.

    Returns:
        `gathers_shape`, without unit; that of the mirror image has its first and last axes reversed. And the sum of
        squares of the gathers.
    """
    shots, time, receivers = gathers.shape
    shape = gathers_shape((shots, time, receivers))
    energy = np.empty(shape)
    total = float(np.vdot(gathers, gathers))
    places = [_blocks(length, count) for length, count in zip(gathers.shape, shape, strict=True)]
    for (i, some), (j, window), (k, side) in itertools.product(*map(enumerate, places)):
        block = gathers[some, window, side]
        energy[i, j, k] = np.einsum("str,str->", block, block)
    return np.sqrt(energy / max(total, TINY)).astype(np.float32), total


def _blocks(length: int, count: int) -> list[slice]:
    """Runs of an axis, the same from either end: a few places in the middle may belong to none."""
    edges = [length * number // count for number in range(count // 2 + 1)]
    left = list(itertools.pairwise(edges))
    middle = [(edges[-1], length - edges[-1])] if count % 2 else []
    right = [(length - stop, length - start) for start, stop in reversed(left)]
    return [slice(start, stop) for start, stop in (*left, *middle, *right)]
