"""A line per epoch, readable in a terminal and in a log file."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class EpochLines(Callback):
    """Print step, loss, validation scores, rate and time left after every epoch."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._first_epoch = 0
        self._epoch_begun = 0.0
        self._batches = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._begun = time.monotonic()
        self._first_epoch = trainer.current_epoch
        # A run that goes on inside an epoch does not come by its start.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_begun = time.monotonic()
        self._batches = 0

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Count the batches of this epoch that this process did."""
        self._batches += 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the line."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        names = {"train/loss": "loss {:.4f}", "val/mae": "val/mae {:.1f} m/s", "val/ssim": "val/ssim {:.4f}"}
        names["val/reconstruction"] = "val/reconstruction {:.4f}"
        names["val/boundary_iou"] = "val/boundary_iou {:.3f}"
        scores = [text.format(float(metrics[name])) for name, text in names.items() if name in metrics]
        seconds = time.monotonic() - self._epoch_begun
        done = trainer.current_epoch + 1
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        parts = [f"epoch {done}/{epochs or '?'}", *scores, f"{self._batches / seconds:.1f} steps/s"]
        if epochs:
            average = (time.monotonic() - self._begun) / (done - self._first_epoch)
            parts.append(f"{_clock(average * (epochs - done))} left")
        print("  ".join(parts), flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
