"""Networks from gathers to velocity: stems, encoders, decoders, heads. Nothing here knows Lightning or files."""

from fwi_lightning.models.base import InputTransform, VelocityModel
from fwi_lightning.models.inversionnet import InversionNet
from fwi_lightning.models.scale import normalise_velocity
from fwi_lightning.models.shallow_unet import ShallowUNet

__all__ = ["InputTransform", "InversionNet", "ShallowUNet", "VelocityModel", "normalise_velocity"]
