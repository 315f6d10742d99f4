"""The simulation as PyTorch sees it: one operation with a gradient, on the back end of the tensor's device."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


def back_end(device: torch.device) -> ModuleType:
    """The module with `forward`, `backward` and `illuminate` for a device: CPU or CUDA.

    Raises:
        UserError: If the device is of another type.
    """
    if device.type == "cpu":
        from fwi_lightning.physics import cpu

        return cpu
    if device.type == "cuda":
        from fwi_lightning.physics import cuda

        return cuda
    raise UserError(f"velocity must be on the CPU or on a CUDA device, got {device}: pass velocity.cpu().")


class Simulation(torch.autograd.Function):
    """Velocity (samples, depth, width) in m/s to gathers (samples, shots, time, receivers)."""

    @staticmethod
    def forward(ctx: Any, velocity: Tensor, slowest: Tensor, survey: Survey) -> Tensor:
        """Simulate. Nothing but the maps is kept for the gradient, which simulates again."""
        ctx.save_for_backward(velocity, slowest)
        ctx.survey = survey
        return back_end(velocity.device).forward(velocity, slowest, survey)

    @staticmethod
    def backward(ctx: Any, *residual: Tensor) -> tuple[Tensor, None, None]:
        """The adjoint simulation."""
        velocity, slowest = ctx.saved_tensors
        return _Gradient.apply(velocity, slowest, residual[0], ctx.survey), None, None


class _Gradient(torch.autograd.Function):
    """The gradient as an operation of its own, so that a second derivative is refused in words."""

    @staticmethod
    def forward(ctx: Any, velocity: Tensor, slowest: Tensor, residual: Tensor, survey: Survey) -> Tensor:
        return back_end(velocity.device).backward(velocity.detach(), slowest, survey, residual)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        raise UserError(
            "simulate has a gradient but no second derivative: use create_graph=False, or detach the gradient."
        )
