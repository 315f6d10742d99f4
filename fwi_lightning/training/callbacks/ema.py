"""The exponential moving average of the weights: what is validated, saved and predicted with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from fwi_lightning.errors import UserError


@dataclass(frozen=True)
class _Pairs:
    """Tensors of the average and those of the module that belong to them.

    Attributes:
        averages: Averaged, in the order of `currents`.
        currents: What they move towards.
        copies: Copied, in the order of `originals`.
        originals: What they are copies of.
    """

    averages: list[Tensor]
    currents: list[Tensor]
    copies: list[Tensor]
    originals: list[Tensor]


def _pair(average: nn.Module, module: nn.Module) -> _Pairs:
    """What is averaged and what is copied."""
    states = {
        id(buffer) for part in module.modules() if isinstance(part, ParametrizationList) for buffer in part.buffers()
    }
    pairs = _Pairs([], [], [], [])
    tensors = chain(average.parameters(), average.buffers()), chain(module.parameters(), module.buffers())
    for mean, current in zip(*tensors, strict=True):
        averaged = current.is_floating_point() and id(current) not in states
        (pairs.averages if averaged else pairs.copies).append(mean.detach())
        (pairs.currents if averaged else pairs.originals).append(current.detach())
    return pairs


class EMA(WeightAveraging):
    """Lightning's weight averaging with a decay that warms up and a start that may wait.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage has it: the
    average of the first steps is young, and the initial weights are soon forgotten. Running means of batch norms are
    averaged with the weights. Copied are counters, and what a parametrisation keeps: the vectors u and v of a spectral
    norm have unit length, and a mean of such vectors has not. The average lies on the device of the weights.

    Validation, checkpoints ("state_dict") and the end of the training have the averaged weights as soon as there are
    any; the others are in the checkpoint beside them, for a resume.

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
        super().__init__(use_buffers=True)
        self._pairs = _Pairs([], [], [], [])

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Make the average. Lightning calls this."""
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise UserError("averaged weights cannot be sharded: leave them out with '~callbacks.ema'.")
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look up what is averaged, for a run that goes on inside an epoch too."""
        self._look_up(pl_module)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look up what is averaged: once an epoch, since a walk through all modules at each step would cost more."""
        self._look_up(pl_module)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Move the average. Lightning calls this."""
        if trainer.global_step > self._latest_update_step and self.should_update(trainer.global_step - 1):
            self._update()
            self._latest_update_step = trainer.global_step

    def _look_up(self, pl_module: lightning.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)
        self._pairs = _pair(self._average_model.module, pl_module)
        self._updates = int(self._average_model.n_averaged)

    @torch.no_grad()
    def _update(self) -> None:
        """One update; the first one copies."""
        assert self._average_model is not None
        pairs, done = self._pairs, self._updates
        if done:
            decay = min(self.decay, (1 + done) / (10 + done))
            torch._foreach_lerp_(pairs.averages, pairs.currents, 1 - decay)
        else:
            torch._foreach_copy_(pairs.averages, pairs.currents)
        for copy, current in zip(pairs.copies, pairs.originals, strict=True):
            copy.copy_(current)
        self._average_model.n_averaged += 1
        self._updates += 1

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
