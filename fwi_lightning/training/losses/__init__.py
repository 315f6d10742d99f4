"""What training minimises: the error of the map, and what the wave equation says of it.

A loss is called with the predicted velocity (batch, 1, depth, width) in m/s, the batch and the survey, and gives a
scalar. `CombinedLoss` adds several up, each under a name of its own.
"""

from torch import nn

from fwi_lightning.training.losses.combined import CombinedLoss
from fwi_lightning.training.losses.guarded import GuardedLoss
from fwi_lightning.training.losses.heads import head_losses
from fwi_lightning.training.losses.l1 import L1Loss
from fwi_lightning.training.losses.pde import PDEResidual, pde_residual
from fwi_lightning.training.losses.waveform import WaveformMisfit

__all__ = [
    "CombinedLoss",
    "L1Loss",
    "PDEResidual",
    "WaveformMisfit",
    "guarded_terms",
    "head_losses",
    "needs_illumination",
    "pde_residual",
    "reads_record",
]


def needs_illumination(loss: nn.Module) -> bool:
    """Whether a loss, or a term of it, reads `batch["illumination"]`."""
    return any(isinstance(term, PDEResidual) for term in loss.modules())


def reads_record(loss: nn.Module) -> bool:
    """Whether a loss, or a term of it, compares with `batch["gathers"]`."""
    return any(isinstance(term, WaveformMisfit) for term in loss.modules())


def guarded_terms(loss: nn.Module) -> dict[str, GuardedLoss]:
    """A loss's guarded terms, or itself if it is one, by their names as modules."""
    return {name: term for name, term in loss.named_modules() if isinstance(term, GuardedLoss)}
