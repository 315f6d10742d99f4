"""After the network: what a prediction is worth, and how to make it better."""

from fwi_lightning.inversion.chain import STEPS, Chain, build_steps
from fwi_lightning.inversion.fixed_point import correct
from fwi_lightning.inversion.objective import Refined
from fwi_lightning.inversion.refinement import refine
from fwi_lightning.inversion.state import State
from fwi_lightning.inversion.steps import Step

__all__ = ["STEPS", "Chain", "Refined", "State", "Step", "build_steps", "correct", "refine"]
