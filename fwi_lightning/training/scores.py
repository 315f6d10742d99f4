"""The scores per family and overall, as a metric that batches and processes add to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from fwi_lightning.training.metrics import boundary_overlap, score_samples


class VelocityScores(Metric):
    """The scores per family and overall, from sums alone: batches and processes may come in any order.

    MAE and SSIM are means over samples, RMSE is the root of the mean square over all cells, boundary IoU divides the
    summed intersection by the summed union.

    Args:
        families: Names of the families, in the order of their numbers.
        alone: Whether the sums are of this process and not of all together. Default False.
    """

    full_state_update = False
    is_differentiable = False
    samples: Tensor
    mae: Tensor
    square: Tensor
    ssim: Tensor
    intersection: Tensor
    union: Tensor

    def __init__(self, families: Sequence[str], alone: bool = False) -> None:
        super().__init__(sync_on_compute=not alone)
        self.families = tuple(families)
        for name in ("samples", "mae", "square", "ssim", "intersection", "union"):
            zeros = torch.zeros(len(self.families), dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor, family: Tensor) -> None:
        """Add a batch: two maps (batch, 1, depth, width) in m/s and the number of each sample's family (batch,)."""
        scores = score_samples(prediction, truth)
        intersection, union = boundary_overlap(prediction, truth)
        additions = {
            "samples": torch.ones_like(scores["mae"]),
            "mae": scores["mae"],
            "square": scores["rmse"].square(),
            "ssim": scores["ssim"],
            "intersection": intersection,
            "union": union,
        }
        for name, values in additions.items():
            getattr(self, name).index_add_(0, family, values.double())

    def compute(self) -> dict[str, Tensor]:
        """The overall scores, by the names of `SCORES`."""
        return self._scores({name: getattr(self, name).sum() for name in self._defaults})

    def per_family(self) -> dict[str, dict[str, float]]:
        """Scores and number of samples of every family that has any, by family name."""
        table = {}
        # Under DDP the sums of all processes, as in `compute`.
        with self.sync_context(should_sync=self.sync_on_compute):
            for number, family in enumerate(self.families):
                sums = {name: getattr(self, name)[number] for name in self._defaults}
                if sums["samples"] > 0:
                    scores = {name: value.item() for name, value in self._scores(sums).items()}
                    table[family] = {"samples": int(sums["samples"])} | scores
        return table

    @staticmethod
    def _scores(sums: dict[str, Tensor]) -> dict[str, Tensor]:
        count = sums["samples"].clamp_min(1)
        none = sums["union"] == 0
        return {
            "mae": sums["mae"] / count,
            "rmse": (sums["square"] / count).sqrt(),
            "ssim": sums["ssim"] / count,
            "boundary_iou": torch.where(none, 1.0, sums["intersection"] / sums["union"].clamp_min(1)),
        }
