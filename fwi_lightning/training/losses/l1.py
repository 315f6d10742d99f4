"""The error of the map itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fwi_lightning.models import normalise_velocity
from fwi_lightning.survey import Survey


class L1Loss(nn.Module):
    """Mean absolute error of the velocity on the label scale (1500..4500 m/s to [-1, 1]).

    Args:
        weight: Factor. Default 1: a loss of 0.1 is then an MAE of 150 m/s.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """Velocity (batch, 1, depth, width) in m/s, against `batch["velocity"]`, to a scalar."""
        return self.weight * (normalise_velocity(prediction) - normalise_velocity(batch["velocity"])).abs().mean()
