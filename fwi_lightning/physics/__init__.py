"""The wave equation: from a velocity map and a survey to the gathers it would record, and back by the gradient."""

from fwi_lightning.physics.simulate import illuminate, simulate

__all__ = ["illuminate", "simulate"]
