"""Several models as one: out-of-fold predictions, weights, a meta-learner, and the model that they make."""

from fwi_lightning.inversion.ensemble.file import load_model, write_ensemble
from fwi_lightning.inversion.ensemble.model import Ensemble

__all__ = ["Ensemble", "load_model", "write_ensemble"]
