"""Learning-rate schedules where torch's own do not suffice."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


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
