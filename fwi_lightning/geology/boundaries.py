"""Where velocity jumps."""

from __future__ import annotations

import torch
from torch import Tensor

BOUNDARY_JUMP = 100.0
"""m/s between two neighbouring cells that make a boundary. It lies above the slope of a map without layers (Style_A:
31 m/s a cell of trend, 52 m/s rms of texture) and below nearly all jumps between the layers of the other families."""


def boundaries(velocity: Tensor) -> Tensor:
    """Cells at a jump: velocity differs by more than `BOUNDARY_JUMP` from one of the four neighbours.

    Args:
        velocity: (..., depth, width) in m/s.

    Returns:
        (..., depth, width) bool. Both cells beside a jump are marked.
    """
    marked = torch.zeros(velocity.shape, dtype=torch.bool, device=velocity.device)
    down = (velocity[..., 1:, :] - velocity[..., :-1, :]).abs() > BOUNDARY_JUMP
    right = (velocity[..., :, 1:] - velocity[..., :, :-1]).abs() > BOUNDARY_JUMP
    marked[..., 1:, :] |= down
    marked[..., :-1, :] |= down
    marked[..., :, 1:] |= right
    marked[..., :, :-1] |= right
    return marked
