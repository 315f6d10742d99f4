"""Velocity maps of the ten OpenFWI families, drawn from a seed, and numbers that describe any maps."""

from fwi_lightning.geology.families import FAMILIES, draw
from fwi_lightning.geology.statistics import STATISTICS, statistics, summarise

__all__ = ["FAMILIES", "STATISTICS", "draw", "statistics", "summarise"]
