"""The LightningModule of a training: a model, its loss, and the scores in m/s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torchmetrics import MeanMetric

from fwi_lightning.config import build
from fwi_lightning.models import Answer, InvertibleUNet, VelocityModel
from fwi_lightning.training.checkpoint import build_model
from fwi_lightning.training.losses import CombinedLoss, guarded_terms, head_losses, pde_residual
from fwi_lightning.training.memory import Losses
from fwi_lightning.training.metrics import SCORES, crf_energy, score_samples
from fwi_lightning.training.optimised import OptimisedModule
from fwi_lightning.training.scores import VelocityScores

Batch = Mapping[str, Tensor]

MEANS = ("pde_residual", "crf_energy", "family_accuracy", "expected_mae", "inconsistency")
"""Means over the validation samples that are logged besides the scores, where there is something to log."""


class InversionModule(OptimisedModule):
    """Trains one model on gathers and velocity maps. Its checkpoint alone rebuilds it.

    Args:
        model: Configuration of the model, with `_target_`.
        survey: The survey as a dict.
        loss: Configuration of the loss.
        optimizer: Configuration of the optimiser.
        scheduler: Configuration of the learning-rate schedule, stepped after every batch; None keeps the rate.
        families: Names of the families, in the order of the numbers in a batch.
        heads: Weights of the losses of the heads that the model has, by name; see `head_losses`. Default 0.1 each.
        metrics: Further means over the validation samples: "crf_energy", whether to log that. Default none.

    Raises:
        UserError: If a configuration names something unknown.
    """

    def __init__(
        self,
        model: dict[str, Any],
        survey: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
        families: Sequence[str],
        heads: Mapping[str, float] | None = None,
        metrics: Mapping[str, bool] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.model: VelocityModel = build_model(model, survey, families)
        self.heads = {"uncertainty": 0.1, "family": 0.1, "inverse": 0.1} | dict(heads or {})
        self.measures_energy = bool((metrics or {}).get("crf_energy"))
        self.loss = build(loss)
        self.val_scores = VelocityScores(families)
        self.val_means = nn.ModuleDict({name: MeanMetric() for name in MEANS})
        self.test_scores = VelocityScores(families)
        self.sample_scores: list[dict[str, float]] = []

    def forward(self, gathers: Tensor) -> Tensor:
        """Gathers (batch, shots, time, receivers) to velocity (batch, 1, depth, width) in m/s."""
        return self.model(gathers)

    def answer(self, batch: Batch) -> Answer:
        """What the model says of a batch."""
        return self.model.answer(batch["gathers"])

    @torch.no_grad()
    def predict_sample(self, sample: Mapping[str, Any]) -> NDArray[np.float32]:
        """The map of one sample of a data set, (1, depth, width) in m/s."""
        training = self.training
        self.eval()
        batch = {name: value[None].to(self.device) for name, value in sample.items() if isinstance(value, Tensor)}
        velocity: NDArray[np.float32] = self.answer(batch).velocity[0].float().cpu().numpy()
        self.train(training)
        return velocity

    def losses(self, batch: Batch) -> Losses:
        """The loss of a batch, and its parts."""
        answer = self.answer(batch)
        loss = self.loss(answer.velocity, batch, self.model.survey)
        said = head_losses(answer, batch)
        total = loss + sum(self.heads[name] * value for name, value in said.items())
        parts = self.loss.parts if isinstance(self.loss, CombinedLoss) else {}
        return total, said | {name: torch.as_tensor(value, device=self.device) for name, value in parts.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, logged with its parts, and with how many samples some of them left out."""
        for term in guarded_terms(self.loss).values():
            term.steps = self.trainer.fit_loop.epoch_loop.total_batch_idx
        loss = super().training_step(batch, batch_idx)
        if isinstance(self.loss, CombinedLoss):
            skipped = {
                f"train/{name}_skipped": torch.as_tensor(count, dtype=torch.float32, device=self.device)
                for name, count in self.loss.skipped.items()
            }
            self.log_row(skipped, sync_dist=True, reduce_fx="sum")
        return loss

    def validation_names(self, illuminated: bool) -> list[str]:
        """What a validation logs, and a callback or a schedule may monitor.

        Args:
            illuminated: Whether the batches have the illumination.
        """
        names = [f"val/{name}" for name in SCORES] + [f"val/mae/{family}" for family in self.val_scores.families]
        said = {
            "val/family_accuracy": self.model.families,
            "val/expected_mae": self.model.outputs > 1,
            "val/inconsistency": isinstance(self.model, InvertibleUNet),
            "val/pde_residual": illuminated,
            "val/crf_energy": self.measures_energy,
        }
        return names + [name for name, there in said.items() if there]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation scores; where the illumination is at hand, the PDE residual too."""
        answer = self.answer(batch)
        prediction = answer.velocity
        self.val_scores.update(prediction, batch["velocity"], batch["family"])
        found: dict[str, Tensor | None] = {
            "expected_mae": None if answer.scale is None else answer.scale.flatten(1).mean(dim=1),
            "inconsistency": answer.inconsistency,
        }
        if answer.family is not None:
            found["family_accuracy"] = (answer.family.argmax(dim=1) == batch["family"]).float()
        if self.measures_energy:
            found["crf_energy"] = crf_energy(prediction)
        if "illumination" in batch:
            found["pde_residual"] = pde_residual(prediction, batch["velocity"], batch["illumination"])
        for name, values in found.items():
            if values is not None:
                self.val_means[name].update(values)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the scores, overall and the MAE of every family."""
        self._log_scores("val", self.val_scores)
        self.val_scores.reset()
        # By name and not by what was seen: a device without a single sample has to take part in the sums.
        illuminated = getattr(self.trainer.datamodule, "needs_illumination", False)  # type: ignore[attr-defined]
        for name in MEANS:
            if f"val/{name}" in self.validation_names(illuminated):
                self.log(f"val/{name}", self.val_means[name].compute())  # type: ignore[operator]
                self.val_means[name].reset()  # type: ignore[operator]

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        self.test_scores.reset()
        self.sample_scores = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test scores and keep every sample's own."""
        prediction = self.answer(batch).velocity
        self.test_scores.update(prediction, batch["velocity"], batch["family"])
        scores = score_samples(prediction, batch["velocity"])
        for row, index in enumerate(batch["index"].tolist()):
            self.sample_scores.append({"index": index} | {name: scores[name][row].item() for name in SCORES})

    def on_test_epoch_end(self) -> None:
        """Log the test scores, and bring the samples' own together from all devices."""
        self._log_scores("test", self.test_scores)
        if self.trainer.world_size > 1:
            shares: list[Any] = [None] * self.trainer.world_size
            distributed.all_gather_object(shares, self.sample_scores)
            self.sample_scores = [row for share in shares for row in share]

    def _log_scores(self, stage: str, scores: VelocityScores) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in scores.compute().items()}, prog_bar=True)
        for family, row in scores.per_family().items():
            self.log(f"{stage}/mae/{family}", row["mae"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep, besides the random numbers, the counts of samples left out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["skipped"] = {name: int(term.skipped) for name, term in guarded_terms(self.loss).items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        for name, term in guarded_terms(self.loss).items():
            term.skipped = checkpoint.get("skipped", {}).get(name, 0)
