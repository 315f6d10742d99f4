"""The LightningModule of a refiner: it learns to correct the maps that another network has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.models import Answer, Refiner
from fwi_lightning.training.module import Batch, InversionModule


class RefinerModule(InversionModule):
    """Trains a `Refiner` on batches that also have start, residual and gradient; see `StartsDataset`.

    Args:
        network: SHA-256 of the checkpoint whose maps are corrected: a refiner belongs to its network.
        **settings: As `InversionModule`.
    """

    model: Refiner

    def __init__(self, network: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.save_hyperparameters("network", logger=False)

    def answer(self, batch: Batch) -> Answer:
        """The corrected maps of a batch."""
        return self.model.correct(batch["gathers"], batch["start"], batch["residual"], batch["gradient"])

    def fit_scales(self, batch: Mapping[str, Tensor]) -> None:
        """Give the refiner the scales of residuals and gradients from some training samples."""
        self.model.fit(torch.as_tensor(batch["residual"]), torch.as_tensor(batch["gradient"]))
