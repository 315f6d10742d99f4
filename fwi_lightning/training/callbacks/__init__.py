"""Callbacks of the trainer, each a named entry in conf/callbacks."""

from fwi_lightning.training.callbacks.console import EpochLines
from fwi_lightning.training.callbacks.interrupt import Interrupt

__all__ = ["EpochLines", "Interrupt"]
