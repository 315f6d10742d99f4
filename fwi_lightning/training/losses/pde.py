"""How badly a predicted map breaks the wave equation of the true wavefield."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey
from fwi_lightning.training.losses.guarded import GuardedLoss


def pde_residual(prediction: Tensor, truth: Tensor, illumination: Tensor, cap: float = 10.0) -> Tensor:
    """Relative rms residual of the wave equation of the true wavefield with the predicted velocity in it.

    The true wavefield u of a shot satisfies  u_tt + damping = v_true^2 (lap u + w delta),  w being the wavelet at the
    source's cell (in the scheme: with the difference Laplacian, step by step). Put v_pred in its place, and

        residual = u_tt + damping - v_pred^2 (lap u + w delta) = (v_true^2 - v_pred^2) (lap u + w delta)

    is left. Summed over shots and steps, its energy is a weighted squared error of v^2,

        sum over cells of I(x) (v_pred^2 - v_true^2)^2,   I = sum over shots and steps of (lap u + w delta)^2,

    with the illumination I as weight: `fwi_lightning.physics.illuminate` gives it, in one simulation of the true map,
    once for all steps of a training. Divided by the energy of v_true^2 (lap u + w delta), the root is a relative rms:
    0 for the true map, about 2 |dv| / v for an error dv everywhere. The sum runs over the cells of the map; the damping
    depends on min(v), which is left as it was.

    Args:
        prediction: (batch, 1, depth, width), m/s.
        truth: (batch, 1, depth, width), m/s.
        illumination: (batch, depth, width) or (batch, 1, depth, width), in any unit.
        cap: Largest weight of a cell, in units of the map's mean: next to a shot, illumination is a spike of some 50.
            Default 10.

    Returns:
        (batch,), without unit.
    """
    weight = illumination.reshape(truth.shape)
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    weight = weight.clamp_max(cap)
    # In units of 3 km/s: the fourth power of m/s is at the end of float16's and wastes float32's range.
    squared, true_squared = (prediction / 3000).square(), (truth / 3000).square()
    energy = (weight * (squared - true_squared).square()).sum(dim=(1, 2, 3))
    return (energy / (weight * true_squared.square()).sum(dim=(1, 2, 3)) + 1e-12).sqrt()


class PDEResidual(GuardedLoss):
    """Mean of `pde_residual` over samples. Reads `batch["illumination"]`; simulates where a batch has none.

    Args:
        weight: Factor. Default 0.3.
        cap: As `pde_residual`. Default 10.
        every: As `GuardedLoss`. Default 1.
        warm_up: As `GuardedLoss`. Default 0.
        clip: As `GuardedLoss`. Default 3.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self, weight: float = 0.3, cap: float = 10.0, every: int = 1, warm_up: int = 0, clip: float = 3.0
    ) -> None:
        super().__init__(weight, every, warm_up, clip)
        if not cap > 0:
            raise UserError(f"cap of PDEResidual must be more than 0, got {cap}.")
        self.cap = cap

    def measure(self, velocity: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """See `pde_residual`."""
        truth = batch["velocity"]
        illumination = batch["illumination"] if "illumination" in batch else illuminate(truth[:, 0], survey)[1]
        return pde_residual(velocity, truth, illumination, self.cap)
