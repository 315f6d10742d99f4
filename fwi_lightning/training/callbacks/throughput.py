"""How fast training goes, and how much of the time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Log `train/samples_per_s`, of all devices together, and `train/data_wait`, the share of time spent on data.

    Both since the last row of the log. Validation and the saving of checkpoints do not count. On a GPU, the time of a
    step is that of the host, which runs ahead by a few steps.
    """

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self._begun = 0.0
        self._samples = 0
        self._waited = self._computed = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The first batch of an epoch is waited for from here."""
        self._waiting_since = time.perf_counter()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """What comes after a validation does not count as waiting."""
        self._waiting_since = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The data is there."""
        self._begun = time.perf_counter()
        if self._waiting_since is not None:
            self._waited += self._begun - self._waiting_since

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
    ) -> None:
        """Count the batch, and log where the log has a row."""
        now = time.perf_counter()
        self._computed += now - self._begun
        self._samples += len(batch["gathers"]) * trainer.world_size
        if trainer._logger_connector.should_update_logs:
            total = self._waited + self._computed
            pl_module.log_dict(
                {"train/samples_per_s": self._samples / total, "train/data_wait": self._waited / total},
                on_step=True,
                on_epoch=False,
            )
            self._samples, self._waited, self._computed = 0, 0.0, 0.0
        self._waiting_since = time.perf_counter()
