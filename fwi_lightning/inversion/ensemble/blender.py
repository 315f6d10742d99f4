"""From the members' maps to one: the part of an ensemble that is fitted on out-of-fold samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fwi_lightning.inversion.ensemble.features import Features, Inputs, describe
from fwi_lightning.inversion.ensemble.learner import (
    LEAST_WEIGHT,
    FeatureNet,
    PixelGate,
    cell_places,
    member_columns,
    sample_columns,
)
from fwi_lightning.inversion.ensemble.weights import weighted_median
from fwi_lightning.survey import Survey

BASELINES = ("best single", "mean", "median", "weighted median")
"""What static weights are compared with."""

STATIC, FAMILY, SAMPLE, PIXEL = "static weights", "static weights per family", "meta per sample", "meta per cell"
METHODS = (*BASELINES, STATIC, FAMILY, SAMPLE, PIXEL)
"""Ways from several maps to one, simple ones first."""

LEAST_ERROR = 1e-3
"""m/s, where members agree to the last digit."""


class Blend(NamedTuple):
    """One map of several.

    Attributes:
        velocity: (samples, depth, width) in m/s.
        weights: (members, samples, 1, 1), or (members, samples, depth, width) per cell.
        scale: Expected absolute error of each cell, (samples, depth, width) in m/s.
        family: Logits (samples, families).
        ssim: Predicted SSIM of the map, (samples,).
        member_ssim: Predicted SSIM of each member's map, (members, samples).
    """

    velocity: Tensor
    weights: Tensor
    scale: Tensor
    family: Tensor
    ssim: Tensor
    member_ssim: Tensor


class Blender(nn.Module):
    """Weighs the maps of several members.

    Args:
        members: Members.
        families: Families.
        survey: The survey.
        own_blocks: Blocks of the features of each member's map; see `features.describe`.
        shared_blocks: Blocks of the features of a sample.
        method: One of `METHODS`, how `forward` makes one map. Default: static weights.
    """

    weights: Tensor
    family_weights: Tensor
    calibration: Tensor
    expectation: Tensor
    best: Tensor

    def __init__(
        self,
        members: int,
        families: int,
        survey: Survey,
        own_blocks: Sequence[str],
        shared_blocks: Sequence[str],
        method: str = STATIC,
    ) -> None:
        super().__init__()
        self.members, self.families, self.survey, self.method = members, families, survey, method
        self.own_blocks, self.shared_blocks = tuple(own_blocks), tuple(shared_blocks)
        self.register_buffer("weights", torch.full((members,), 1 / members))
        self.register_buffer("family_weights", torch.full((families, members), 1 / members))
        self.register_buffer("calibration", torch.zeros(2))
        self.register_buffer("expectation", torch.tensor([0.0, 1.0, 0.0]))
        self.register_buffer("best", torch.zeros((), dtype=torch.int64))
        columns = len(self.own_blocks) + len(self.shared_blocks)
        self.family_net = FeatureNet(columns, families)
        self.quality = FeatureNet(columns + members + 1, 1)
        self.gate = FeatureNet(columns + 1 + families + members, 1)
        self.pixel_gate = PixelGate(members, columns + members + families)

    def settings(self) -> dict[str, Any]:
        """What rebuilds it, beside its state and the survey: plain numbers and words."""
        return {
            "members": self.members,
            "families": self.families,
            "own_blocks": list(self.own_blocks),
            "shared_blocks": list(self.shared_blocks),
            "method": self.method,
        }

    def quality_columns(self, features: Features, blended: bool = False) -> Tensor:
        """What the quality head reads: rows of the members' maps, or of one blended map."""
        slots = torch.eye(self.members + 1)
        return member_columns(features, slots[-1:] if blended else slots[:-1])

    def gate_columns(self, features: Features, ssim: Tensor, probabilities: Tensor) -> Tensor:
        """What the weights of a sample depend on: features, predicted SSIM (members, samples), family probabilities."""
        more = [ssim[..., None], probabilities.expand(self.members, -1, -1)]
        return member_columns(features, torch.eye(self.members), more)

    def gate_blocks(self) -> list[str]:
        """Name of the block of each of these columns."""
        blocks = [*self.own_blocks, *self.shared_blocks, "predicted SSIM"]
        return blocks + ["family"] * self.families + ["member"] * self.members

    def context(self, features: Features, ssim: Tensor, probabilities: Tensor) -> Tensor:
        """What the weights of a cell depend on besides the maps, (samples, numbers)."""
        return torch.cat([sample_columns(features), ssim.T, probabilities], dim=1)

    def base(self) -> Tensor:
        """Logarithms of the static weights, (members,): what the meta-learner's scores are added to."""
        return self.weights.clamp_min(LEAST_WEIGHT).log()

    def sample_weights(self, columns: Tensor) -> Tensor:
        """(members, samples, columns) to weights (members, samples)."""
        return (self.gate(columns)[..., 0] + self.base()[:, None]).softmax(dim=0)

    def cell_weights(self, velocity: Tensor, context: Tensor, place: Tensor) -> Tensor:
        """As `PixelGate.forward`, to weights (members, samples, depth, width)."""
        scores = self.pixel_gate(velocity, context, place).transpose(0, 1)
        return (scores + self.base()[:, None, None, None]).softmax(dim=0)

    def weigh(self, method: str, inputs: Inputs, features: Features, ssim: Tensor, probabilities: Tensor) -> Tensor:
        """The weights of a method, (members, samples, 1, 1) or per cell."""
        members, samples, depth, width = inputs.velocity.shape
        if method == PIXEL:
            context = self.context(features, ssim, probabilities)
            return self.cell_weights(inputs.velocity, context, cell_places(samples, depth, width))
        if method == SAMPLE:
            return self.sample_weights(self.gate_columns(features, ssim, probabilities))[..., None, None]
        if method == FAMILY:
            return (probabilities @ self.family_weights).T[..., None, None]
        fixed = self.weights
        if method in ("mean", "median"):
            fixed = torch.full((members,), 1 / members)
        elif method == "best single":
            fixed = torch.eye(members)[self.best]
        return fixed[:, None, None, None].expand(-1, samples, -1, -1)

    def combine(self, method: str, velocity: Tensor, weights: Tensor) -> Tensor:
        """One map of several: the weighted mean, or the weighted median for the methods that are one."""
        if not method.endswith("median"):
            return (weights * velocity).sum(dim=0)
        flat = weights[:, 0, 0, 0].double().numpy()
        return torch.from_numpy(weighted_median(velocity.numpy(), flat))

    def forward(self, inputs: Inputs, method: str | None = None, features: Features | None = None) -> Blend:
        """Weigh the members' maps.

        Args:
            inputs: What the members say.
            method: One of `METHODS`. Default: the one that was kept.
            features: Of the members' maps. Default: computed.

        Returns:
            The map and what is said of it.
        """
        method = method or self.method
        features = features or describe(inputs, self.survey)
        family = self.family_net(sample_columns(features))
        member_ssim = self.quality(self.quality_columns(features))[..., 0]
        weights = self.weigh(method, inputs, features, member_ssim, family.softmax(dim=1))
        velocity = self.combine(method, inputs.velocity, weights)
        blended = describe(inputs, self.survey, velocity[None])
        ssim = self.quality(self.quality_columns(blended, blended=True))[0, :, 0]
        scale = self.expected(self.cell_errors(inputs.velocity, weights, velocity), ssim)
        return Blend(velocity, weights, scale, family, ssim, member_ssim)

    def cell_errors(self, velocity: Tensor, weights: Tensor, blended: Tensor) -> Tensor:
        """Expected absolute errors by the spread of the members alone, (samples, depth, width) in m/s."""
        return self.calibration[0] + self.calibration[1] * self.spread(velocity, weights, blended)

    def expected(self, errors: Tensor, ssim: Tensor) -> Tensor:
        """The same with the mean of each sample that its predicted SSIM makes likely, too.

        Members that were taught alike agree in what they get wrong; the predicted SSIM knows more of that.

        Args:
            errors: As `cell_errors`.
            ssim: Predicted SSIM of the map, (samples,).
        """
        mean = errors.mean(dim=(1, 2)).clamp_min(LEAST_ERROR)
        offset, power, slope = self.expectation
        return errors * ((offset + slope * ssim).exp() * mean ** (power - 1))[:, None, None]

    @staticmethod
    def spread(velocity: Tensor, weights: Tensor, blended: Tensor) -> Tensor:
        """Weighted mean distance of the members from the one map, (samples, depth, width) in m/s."""
        return (weights * (velocity - blended).abs()).sum(dim=0)

    def take_weights(
        self, weights: Sequence[float] | NDArray[np.float64], own: Mapping[int, NDArray[np.float64]] | None = None
    ) -> None:
        """Set static weights: (members,) of sum 1, and by number of a family where it has its own."""
        self.weights.copy_(torch.as_tensor(np.asarray(weights)))
        self.family_weights.copy_(self.weights.expand(self.families, -1))
        for family, found in (own or {}).items():
            self.family_weights[family].copy_(torch.as_tensor(found))
