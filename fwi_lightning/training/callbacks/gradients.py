"""How long the gradients are, and how often they are cut short."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from fwi_lightning.training.optimised import OptimisedModule


class GradientNorm(Callback):
    """Log `train/grad_norm`, the 2-norm of the gradient before clipping, and `train/clipped`.

    The latter is, with `trainer.gradient_clip_algorithm=norm`, the share of steps since the last row of the log whose
    gradient was longer than `trainer.gradient_clip_val`; with `value`, the share of entries beyond it. The clipping
    itself is done elsewhere: by `OptimisedModule`, which uses the norm found here, or by Lightning.
    """

    def __init__(self) -> None:
        self._clipped: list[Tensor] = []

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure; Lightning calls this with unscaled gradients, before it clips them."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return
        found = torch.nn.utils.get_total_norm(gradients)
        if isinstance(pl_module, OptimisedModule):
            pl_module.gradient_norm = found
        norm = whole(found)
        limit = trainer.gradient_clip_val
        if limit:
            by_value = trainer.gradient_clip_algorithm == "value"
            self._clipped.append(_share_beyond(gradients, limit) if by_value else (norm > limit).float())
        if trainer._logger_connector.should_update_logs:
            pl_module.log("train/grad_norm", norm, on_epoch=False)
            if self._clipped:
                pl_module.log("train/clipped", torch.stack(self._clipped).mean(), on_epoch=False)
                self._clipped = []


def _share_beyond(gradients: list[Tensor], limit: float) -> Tensor:
    """Share of all entries whose absolute value is above the limit."""
    beyond = torch.stack([whole((gradient.abs() > limit).sum()) for gradient in gradients]).sum()
    return beyond.float() / sum(gradient.numel() for gradient in gradients)


def whole(value: Tensor) -> Tensor:
    """A number of which each device may hold a part, with trainer=fsdp."""
    return value.full_tensor() if isinstance(value, DTensor) else value
