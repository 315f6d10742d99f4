"""Velocity maps of the ten OpenFWI families, drawn from a seed, and the figures that describe any such maps."""

from fwi_lightning.geology.families import FAMILIES, draw
from fwi_lightning.geology.statistics import statistics, summarise

__all__ = ["FAMILIES", "draw", "statistics", "summarise"]
