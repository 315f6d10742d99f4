"""What the LightningModules share: the optimiser, its schedule, and random numbers that go on after a resume."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer

from fwi_lightning.config import build, find_class
from fwi_lightning.errors import UserError
from fwi_lightning.training.memory import Losses, SplitStep
from fwi_lightning.training.sharding import shard


def build_schedule(config: Mapping[str, Any], optimizer: Optimizer, total_steps: Callable[[], int]) -> dict[str, Any]:
    """A learning-rate schedule as Lightning takes it.

    Args:
        config: conf/scheduler: the class and its settings, and for Lightning `interval` and `monitor`.
        optimizer: What it steers.
        total_steps: Gives the optimiser steps of the run; called if the schedule goes by them.

    Raises:
        UserError: If a setting does not fit.
    """
    settings = dict(config)
    stepping = {"interval": settings.pop("interval", "step"), "monitor": settings.pop("monitor", None)}
    if stepping["interval"] not in ("step", "epoch"):
        raise UserError(f"scheduler.interval must be step or epoch, got {stepping['interval']!r}.")
    known = inspect.signature(find_class(settings["_target_"])).parameters
    steps = {"total_steps": total_steps()} if "total_steps" in known else {}
    return {"lr_scheduler": {"scheduler": build(settings, optimizer=optimizer, **steps)} | stepping}


class OptimisedModule(lightning.LightningModule, ABC):
    """A module whose hyperparameters hold the configurations "optimizer" and "scheduler".

    The schedule is stepped after every optimiser step, or with `interval: epoch` after every epoch, where `monitor`
    names the score that it looks at; None keeps the rate.

    Attributes:
        memory: What does a step in parts where memory runs out; to be set before the fit. None: Lightning's own step.
        gradient_norm: Norm of the gradient of this step, from whoever has computed it before the clipping; else None.
    """

    memory: SplitStep | None = None
    gradient_norm: Tensor | None = None
    _scheduled: int | None = None

    @abstractmethod
    def losses(self, batch: Mapping[str, Tensor]) -> Losses:
        """The loss of a batch, a mean over its samples, and what else is logged of it, as train/NAME."""

    @abstractmethod
    def validation_names(self, illuminated: bool) -> list[str]:
        """What a validation logs, and a callback or a schedule may monitor.

        Args:
            illuminated: Whether the batches have the illumination.
        """

    def configure_model(self) -> None:
        """Shard the model, with trainer=fsdp. Lightning calls this, before each of fit and test."""
        mesh = self.device_mesh
        if mesh is not None and not getattr(self, "_sharded", False):
            shard(self.model, mesh["data_parallel"])  # type: ignore[arg-type]
            self._sharded = True

    def on_train_start(self) -> None:
        """Take over what is done in parts. Lightning calls this."""
        # With trainer.deterministic torch also writes NaN over memory before it is used, which costs 5 % of a step and
        # changes only what reads memory that nobody has written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if self.memory is not None:
            self.memory.begin(self.trainer)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, logged with its parts."""
        if self.memory is None:
            loss, values = self.losses(batch)
        else:
            loss, values = self.memory.run(self, batch, batch_idx, self.losses)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, prog_bar=True)
        self.log_row({f"train/{name}": value.detach() for name, value in values.items()})
        return loss

    def log_row(self, values: Mapping[str, Tensor], **options: Any) -> None:
        """Log values of a training step where the log has a row: Lightning's own calls cost as much without one.

        Args:
            values: The values by name.
            **options: As `LightningModule.log_dict`.
        """
        if values and self.trainer._logger_connector.should_update_logs:
            self.log_dict(values, on_step=True, on_epoch=False, **options)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning calls this after a step; one that was done in parts has its gradients."""
        if self.memory is None or self.memory.owns_backward:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Lightning calls this between a step and its backward pass, where one done in parts keeps its gradients."""
        if self.memory is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip; a norm that was computed for the log is not computed again. Lightning calls this."""
        norm, self.gradient_norm = self.gradient_norm, None
        if norm is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def configure_optimizers(self) -> Any:
        """The optimiser, without weight decay on biases and norms, and its schedule by the step."""
        weights = [p for p in self.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in self.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        optimizer = build(self.hparams["optimizer"], params=groups)
        if self.hparams["scheduler"] is None:
            return optimizer
        return {"optimizer": optimizer} | build_schedule(self.hparams["scheduler"], optimizer, self._checked_steps)

    def _checked_steps(self) -> int:
        """Optimiser steps of the whole run, which a schedule that is gone on with must not exceed."""
        steps = self._total_steps()
        if self._scheduled and steps > self._scheduled:
            raise UserError(
                f"the checkpoint's schedule ends after {self._scheduled} steps, this run has {steps}: "
                "repeat trainer.max_epochs and max_steps of its run, or begin a new one."
            )
        return steps

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Lightning's own estimate makes the training loader before a resumed run knows its position, which is then lost.
        """
        trainer = self.trainer
        batches = len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        epochs = trainer.max_epochs or 0  # -1 and None: no limit
        limits = [per_epoch * epochs] if epochs > 0 else []
        limits += [trainer.max_steps] if trainer.max_steps > 0 else []
        if not limits:
            raise UserError("this schedule needs the length of the run: set trainer.max_epochs or trainer.max_steps.")
        return min(limits)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the random numbers, so that dropout goes on where it was."""
        checkpoint["rng_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the random numbers; note when the schedule ends."""
        schedules = checkpoint.get("lr_schedulers") or [{}]
        self._scheduled = schedules[0].get("total_steps")
        if "rng_state" in checkpoint:
            torch.set_rng_state(checkpoint["rng_state"].cpu())
