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
    energy, reference = _energies(recorded, simulated)
    tiny = torch.finfo(torch.float32).tiny
    return (energy.sum(dim=1) / reference.sum(dim=1).clamp_min(tiny)).sqrt()


def relative_rms_by_shot(recorded: Tensor, simulated: Tensor) -> Tensor:
    """The same of each shot's gather by itself, (batch, shots)."""
    energy, reference = _energies(recorded, simulated)
    return (energy / reference.clamp_min(torch.finfo(torch.float32).tiny)).sqrt()


def _energies(recorded: Tensor, simulated: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares, of the difference and of the record, (batch, shots) each."""
    reference = recorded[:, :, :-1].double()
    difference = simulated[:, :, :-1].double() - reference
    return difference.square().sum(dim=(2, 3)), reference.square().sum(dim=(2, 3))
