"""The wave equation: from a velocity map and a survey to the gathers it would record."""

from fwi_lightning.physics.simulate import simulate

__all__ = ["simulate"]
