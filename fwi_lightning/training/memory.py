"""A training step that runs out of memory is done again in halves, on all devices together."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from fwi_lightning.errors import UserError

Losses = tuple[Tensor, dict[str, Tensor]]
"""The loss of a batch, a mean over its samples, and what else is logged of it."""


class SplitStep:
    """Forward and backward pass of a batch, in as many parts as memory asks for.

    The gradient is that of the whole batch, sample by sample; batch norms see the parts. All devices do a step
    again if one of them ran out, in equal numbers of parts, so that none waits for another. For that the gradients
    are exchanged here, after the backward pass, and not by DistributedDataParallel within it.

    Attributes:
        parts: Parts of a batch; doubled at each failure, for all later steps too.
        failures: How often memory ran out.

    Args:
        most: Failures after which the run ends.

    Raises:
        UserError: If `most` is below 1.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise UserError(f"memory_failures must be at least 0, got {most}.")
        self.most = most
        self.parts, self.failures = 1, 0
        self._backward = False

    @property
    def owns_backward(self) -> bool:
        """Whether a backward pass asked for now is one of these parts, and not Lightning's own of the whole."""
        return self._backward

    def begin(self, trainer: lightning.Trainer) -> None:
        """Take the exchange of gradients over. To be called before the first step."""
        model = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = False

    def run(
        self,
        module: lightning.LightningModule,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        losses: Callable[[Mapping[str, Tensor]], Losses],
    ) -> Losses:
        """The loss of a batch; its gradient is added to what the module's parameters have.

        Args:
            module: The module; its gradients are set to zero where a new optimiser step begins.
            batch: Tensors of the same first length.
            batch_idx: Place of the batch in the epoch.
            losses: Loss and logged values of a part.

        Returns:
            Loss and logged values of the batch, detached.

        Raises:
            UserError: If memory ran out too often, or for a single sample.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        if batch_idx % module.trainer.accumulate_grad_batches == 0:
            module.zero_grad()
        kept = [None if p.grad is None else p.grad.clone() for p in parameters]
        while True:
            found = self._attempt(module, batch, losses)
            if not _any_failed(module, found is None):
                break
            for parameter, gradient in zip(parameters, kept, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
            self._halve(_length(batch))
        if not module.trainer.fit_loop._should_accumulate():
            _exchange(parameters, module.trainer.world_size)
        assert found is not None
        return found

    def _attempt(
        self,
        module: lightning.LightningModule,
        batch: Mapping[str, Tensor],
        losses: Callable[[Mapping[str, Tensor]], Losses],
    ) -> Losses | None:
        """Loss and logged values; None if memory ran out, whose exception, and all that it holds, is gone by then."""
        samples = _length(batch)
        total, logged = torch.zeros((), device=module.device), dict[str, Tensor]()
        try:
            for part in split(batch, self.parts):
                share = _length(part) / samples
                loss, values = losses(part)
                with self._own_backward(module):
                    module.trainer.strategy.backward(loss * share / module.trainer.accumulate_grad_batches, None)
                total += loss.detach() * share
                for name, value in values.items():
                    logged[name] = logged.get(name, torch.zeros_like(total)) + value.detach() * share
        except RuntimeError as error:
            if not ran_out(error):
                raise
            return None
        return total, logged

    @contextmanager
    def _own_backward(self, module: lightning.LightningModule) -> Iterator[None]:
        self._backward = True
        try:
            with torch.autocast(module.device.type, enabled=False):
                yield
        finally:
            self._backward = False

    def _halve(self, samples: int) -> None:
        self.failures += 1
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.failures > self.most or self.parts >= samples:
            at_once = -(-samples // self.parts)
            raise UserError(
                f"out of memory for the {self.failures}. time, with {at_once} of the {samples} samples of a batch at "
                "once: take a smaller model or trainer.precision=bf16-mixed, or raise memory_failures."
            )
        self.parts *= 2
        rank_zero_warn(
            f"out of memory: the batch of {samples} samples is done again in {self.parts} parts, and so are all others."
        )


def split(batch: Mapping[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """A batch in parts that differ by at most one sample; fewer if it has fewer samples."""
    pieces = {name: torch.tensor_split(value, min(parts, len(value))) for name, value in batch.items()}
    return [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]


def ran_out(error: RuntimeError) -> bool:
    """Whether an exception says that there is no memory left: a GPU's own, or the allocator's of a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _length(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _any_failed(module: lightning.LightningModule, failed: bool) -> bool:
    """Whether any device ran out of memory."""
    if module.trainer.world_size == 1:
        return failed
    flag = torch.tensor(float(failed), device=module.device)
    reduced: Any = module.trainer.strategy.reduce(flag, reduce_op="max")
    return bool(reduced > 0)


def _exchange(parameters: list[torch.nn.Parameter], devices: int) -> None:
    """Replace gradients by their mean over devices, as DistributedDataParallel does."""
    if devices == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients if gradient is not None])
    distributed.all_reduce(flat)
    flat /= devices
    for gradient, mean in zip(gradients, flat.split([p.numel() for p in parameters]), strict=True):
        assert gradient is not None
        gradient.copy_(mean.view_as(gradient))
