"""Learning-rate schedules, all of them by shares of the run: a longer run stretches the same curve.

torch's own where they suffice. `total_steps` is given by the module, which knows the length of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, LRScheduler, MultiStepLR, OneCycleLR

from fwi_lightning.errors import UserError


class OneCycle(OneCycleLR):
    """torch's OneCycleLR (Smith and Topin, 2018, arXiv:1708.07120), for runs of any length.

    torch divides by zero when the rise takes a single step, as in a trial run of a few batches.

    Args:
        optimizer: The optimiser.
        max_lr: Peak of the learning rate.
        total_steps: Steps of the run.
        pct_start: Share of the steps that goes up. Default 0.3.
        **settings: Any other argument of torch's class.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float, total_steps: int, pct_start: float = 0.3, **settings: Any
    ) -> None:
        total_steps = max(total_steps, 3)
        pct_start = max(pct_start, 2 / total_steps)
        super().__init__(optimizer, max_lr, total_steps=total_steps, pct_start=pct_start, **settings)


class Cosine(LRScheduler):
    """A straight rise, then half a cosine down (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts).

    Args:
        optimizer: The optimiser; its learning rate is the peak.
        total_steps: Steps of the run.
        warmup: Share of the steps that rises, from 0 at the step before the first. Default 0.05.
        final: Share of the peak at the end. Default 0.

    Raises:
        UserError: If a share is not one.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0) -> None:
        _check_shares(warmup=warmup, final=final)
        self.total_steps, self.final = total_steps, final
        self.rise = round(warmup * total_steps)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the parameter groups at the present step."""
        if self.last_epoch < self.rise:
            factor = (self.last_epoch + 1) / (self.rise + 1)
        else:
            done = min(1.0, (self.last_epoch - self.rise) / max(1, self.total_steps - self.rise))
            factor = self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
        return [rate * factor for rate in self.base_lrs]


class Cyclic(CyclicLR):
    """torch's CyclicLR (Smith, 2017, arXiv:1506.01186): up and down again, several times in a run.

    Args:
        optimizer: The optimiser; its learning rate is the peak.
        total_steps: Steps of the run.
        cycles: Cycles in a run. Default 4.
        lowest: Share of the peak at the bottom of a cycle. Default 0.05.
        mode: "triangular"; or "triangular2", which halves the peak after each cycle. Default "triangular2".
        cycle_momentum: Whether the optimiser's momentum goes against the rate. Default False.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        cycles: int = 4,
        lowest: float = 0.05,
        mode: str = "triangular2",
        cycle_momentum: bool = False,
    ) -> None:
        _check_shares(lowest=lowest)
        if cycles < 1:
            raise UserError(f"scheduler.cycles must be at least 1, got {cycles}.")
        if mode not in ("triangular", "triangular2"):
            raise UserError(f"scheduler.mode must be triangular or triangular2, got {mode!r}.")
        self.total_steps = total_steps
        peaks = [group["lr"] for group in optimizer.param_groups]
        half: Any = max(1.0, total_steps / cycles / 2)  # torch says int and takes any number
        shape: Any = mode
        super().__init__(
            optimizer, [lowest * peak for peak in peaks], peaks, half, mode=shape, cycle_momentum=cycle_momentum
        )


class WarmRestarts(CosineAnnealingWarmRestarts):
    """torch's CosineAnnealingWarmRestarts (Loshchilov and Hutter, 2017, arXiv:1608.03983), so many in a run.

    Args:
        optimizer: The optimiser; its learning rate is the peak.
        total_steps: Steps of the run.
        periods: Cosines in a run. Default 4.
        growth: How much longer each is than the one before, a whole number. Default 1.
        final: Share of the peak at the end of a period. Default 0.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, periods: int = 4, growth: int = 1, final: float = 0.0
    ) -> None:
        _check_shares(final=final)
        for name, value in (("periods", periods), ("growth", growth)):
            if value < 1:
                raise UserError(f"scheduler.{name} must be at least 1, got {value}.")
        self.total_steps = total_steps
        # Rounded up, so that the run ends within the last period and not one step into another.
        first = math.ceil(total_steps / sum(growth**period for period in range(periods)))
        lowest = final * max(group["lr"] for group in optimizer.param_groups)
        super().__init__(optimizer, max(1, first), growth, lowest)


class Steps(MultiStepLR):
    """torch's MultiStepLR: the rate falls at stated shares of the run.

    Args:
        optimizer: The optimiser; its learning rate is the first.
        total_steps: Steps of the run.
        at: Shares of the run, 0 to 1. Default (0.5, 0.75, 0.9).
        gamma: What the rate is multiplied by each time. Default 0.3.

    Raises:
        UserError: If a share is not one.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, at: Sequence[float] = (0.5, 0.75, 0.9), gamma: float = 0.3
    ) -> None:
        _check_shares(**{f"at[{number}]": share for number, share in enumerate(at)})
        self.total_steps = total_steps
        super().__init__(optimizer, [round(share * total_steps) for share in sorted(at)], gamma)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"scheduler.{name} must be a share from 0 to 1, got {share}.")
