"""The exponential moving average of the weights: what is validated, saved and predicted with."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from fwi_lightning.errors import UserError


class EMA(WeightAveraging):
    """Lightning's weight averaging with a decay that warms up and a start that may wait.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage has it: the
    average of the first steps is young, and the initial weights are soon forgotten. Running means of batch norms are
    averaged with the weights; counters are copied. Validation, checkpoints ("state_dict") and the end of the training
    have the averaged weights as soon as there are any; the others are in the checkpoint beside them, for a resume.

    Args:
        decay: Share of the average that stays at each update. Default 0.999.
        every: Optimiser steps from one update to the next. Default 1.
        start: Optimiser steps before the first update. Default 0.

    Raises:
        UserError: If a number is out of range, or the strategy shards the weights.
    """

    def __init__(self, decay: float = 0.999, every: int = 1, start: int = 0) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay must be at least 0 and below 1, got {decay}.")
        for name, value, least in (("every", every, 1), ("start", start, 0)):
            if value < least:
                raise UserError(f"callbacks.ema.{name} must be at least {least}, got {value}.")
        self.decay, self.every, self.start = decay, every, start
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: Any, currents: Any, updates: Tensor | int) -> None:
        """Move tensors of one type towards the current ones."""
        if not averages[0].is_floating_point():
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)
            return
        done = int(updates)
        decay = min(self.decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Make the average. Lightning calls this."""
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise UserError("averaged weights cannot be sharded: leave them out with '~callbacks.ema'.")
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the step that was just done, counted from 0, is averaged."""
        return step_idx is not None and step_idx >= self.start and (step_idx - self.start) % self.every == 0

    @property
    def begun(self) -> bool:
        """Whether there is an average: before the first update it would be the initial weights."""
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the averaged weights in."""
        if self.begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the weights back."""
        if self.begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the averaged weights."""
        if self.begun:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averaged weights as "state_dict" and the current ones beside them."""
        if self.begun:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both up again; from a checkpoint without an average, the next update begins one."""
        # A test reads a checkpoint too, and wants its averaged weights.
        if "averaging_state" in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
