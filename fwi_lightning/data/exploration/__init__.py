"""What is in a data set, and what is wrong with it."""

from fwi_lightning.data.exploration.exploration import Effort, Exploration, explore
from fwi_lightning.data.exploration.problems import KINDS, Problem, ProblemGroup, group

__all__ = ["KINDS", "Effort", "Exploration", "Problem", "ProblemGroup", "explore", "group"]
