"""Callbacks of the trainer, each a named entry in conf/callbacks."""

from fwi_lightning.training.callbacks.checkpoints import RunCheckpoint
from fwi_lightning.training.callbacks.console import EpochLines
from fwi_lightning.training.callbacks.drawn import Drawn
from fwi_lightning.training.callbacks.ema import EMA
from fwi_lightning.training.callbacks.gradients import GradientNorm
from fwi_lightning.training.callbacks.interrupt import Interrupt
from fwi_lightning.training.callbacks.pictures import Pictures
from fwi_lightning.training.callbacks.pruning import Pruning
from fwi_lightning.training.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "Drawn",
    "EpochLines",
    "GradientNorm",
    "Interrupt",
    "Pictures",
    "Pruning",
    "RunCheckpoint",
    "Throughput",
]
