"""Ctrl-C and SIGTERM end a run between two batches and leave a checkpoint to go on from."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class Interrupt(Callback):
    """Finish the batch, save the checkpoint, then stop, on Ctrl-C or SIGTERM. A second one stops at once.

    Lightning's own handling stops anywhere, also between the step of one parameter and that of the next; a checkpoint
    taken there could not go on exactly. SIGTERM is what `kill`, a batch system and a machine that shuts down send.

    Args:
        path: Checkpoint to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the signal."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {name: signal.signal(name, self._ask) for name in (signal.SIGINT, signal.SIGTERM)}

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the signal back."""
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signal back."""
        self._restore()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Save and stop if that was asked for."""
        if self.asked:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        print(f"\n{name}: stopping after this batch; once more stops at once.", flush=True)

    def _restore(self) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)
        self._previous = {}
