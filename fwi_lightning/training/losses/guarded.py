"""What the losses that come from the wave equation have in common: a schedule, and guards against spikes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VELOCITY_HALF_RANGE
from fwi_lightning.survey import Survey


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is known already. A product would do, were NaN times zero not NaN."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient.to(prediction.dtype))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None


class GuardedLoss(nn.Module, ABC):
    """A mean over samples of a quantity whose gradient may be large, or missing.

    The gradient with respect to the prediction is taken at once, in float32, outside autocast; nothing of the
    quantity's graph is kept. Of a sample whose value or gradient is not finite nothing enters the loss, and it is
    counted; a gradient larger than `clip` is scaled down to it. A subclass says in `measure` what the quantity is.

    Attributes:
        steps: Batches trained on before the next one; each call counts. `set_step` corrects it after a resume.
        value: What the term last contributed to a loss.
        skipped: Samples left out so far, in this process; a tensor where that spares a GPU a wait.

    Args:
        weight: Factor.
        every: The term counts in every so many batches. Default 1.
        warm_up: Batches over which the weight grows from nothing. Default 0.
        clip: Largest norm of a sample's gradient, in units of that of `L1Loss` with weight 1 (which is the same for
            all samples). Default 3.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(self, weight: float, every: int = 1, warm_up: int = 0, clip: float = 3.0) -> None:
        super().__init__()
        limits = (("weight", weight, 0), ("every", every, 1), ("warm_up", warm_up, 0), ("clip", clip, 0))
        for name, value, least in limits:
            if not value >= least:
                raise UserError(f"{name} of {type(self).__name__} must be at least {least}, got {value}.")
        self.weight, self.every, self.warm_up, self.clip = weight, every, warm_up, clip
        self.steps = 0
        self.value: Tensor | float = 0.0
        self.skipped: Tensor | int = 0

    @abstractmethod
    def measure(self, velocity: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """The quantity of each sample, (batch,), differentiable; velocity (batch, 1, depth, width) float32 in m/s."""

    def forward(self, prediction: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """Velocity (batch, 1, depth, width) in m/s and its batch to a scalar."""
        step = self.steps
        self.steps += 1
        weight = self.weight * min(1.0, (step + 1) / (self.warm_up + 1))
        if step % self.every or weight == 0:
            value, gradient = prediction.new_zeros(len(prediction)), torch.zeros_like(prediction)
        else:
            value, gradient = self._differentiate(prediction, batch, survey)
            self.value = weight * value.mean()
        result: Tensor = _WithGradient.apply(prediction, weight * value.mean(), weight * gradient / len(prediction))
        return result

    def _differentiate(self, prediction: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> tuple[Tensor, Tensor]:
        """Value (batch,) and gradient of each sample, zero where either is not finite, the gradient clipped."""
        with torch.enable_grad(), torch.autocast(prediction.device.type, enabled=False):
            point = prediction.detach().float()
            finite = point.isfinite().flatten(1).all(dim=1)
            point = torch.where(finite[:, None, None, None], point, batch["velocity"]).requires_grad_()
            value = self.measure(point, batch, survey)
            (gradient,) = torch.autograd.grad(value.sum(), point)
        value, norm = value.detach(), gradient.flatten(1).norm(dim=1)
        good = finite & value.isfinite() & norm.isfinite()
        self.skipped = self.skipped + (~good).sum()
        # The mean of |v| / 1500 over n cells has a gradient of n numbers of size 1 / (1500 n).
        largest = self.clip / (VELOCITY_HALF_RANGE * prediction[0].numel() ** 0.5)
        factor = torch.where(good, (largest / norm.clamp_min(1e-30)).clamp_max(1), 0)
        gradient = torch.where(good[:, None, None, None], gradient, 0) * factor[:, None, None, None]
        return torch.where(good, value, 0), gradient
