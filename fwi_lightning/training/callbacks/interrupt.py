"""Ctrl-C ends a run between two batches and leaves a checkpoint to go on from."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class Interrupt(Callback):
    """Finish the batch, save the checkpoint, then stop. A second Ctrl-C stops at once.

    Lightning's own handling stops anywhere, also between the step of one parameter and that of the next; a checkpoint
    taken there could not go on exactly.

    Args:
        path: Checkpoint to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.asked = False
        self._previous: Any = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the signal."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the signal back."""
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signal back."""
        self._restore()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Save and stop if Ctrl-C was pressed."""
        if self.asked:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        print("\nCtrl-C: stopping after this batch; once more stops at once.", flush=True)

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
