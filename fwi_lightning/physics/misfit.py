"""How far two records are from each other."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_rms(recorded: Tensor, simulated: Tensor) -> Tensor:
    """Relative rms difference between recorded gathers and simulated ones.

    Args:
        recorded: (batch, shots, time, receivers) as recorded.
        simulated: The same shape.

    Returns:
        (batch,) float64: 0 if they agree; 1 is what silence would score. The last time sample is left out: some
        families store zeros there.
    """
    reference = recorded[:, :, :-1].double()
    difference = simulated[:, :, :-1].double() - reference
    energy = reference.square().sum(dim=(1, 2, 3))
    return (difference.square().sum(dim=(1, 2, 3)) / energy.clamp_min(torch.finfo(torch.float32).tiny)).sqrt()
