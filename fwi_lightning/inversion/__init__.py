"""After the network: what a prediction is worth, and how to make it better."""

from fwi_lightning.inversion.fixed_point import correct
from fwi_lightning.inversion.objective import Refined
from fwi_lightning.inversion.refinement import refine

__all__ = ["Refined", "correct", "refine"]
