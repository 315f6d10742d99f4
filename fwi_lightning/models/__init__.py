"""Networks from gathers to velocity: stems, encoders, decoders, heads. Nothing here knows Lightning or files."""

from fwi_lightning.models.base import Answer, VelocityModel
from fwi_lightning.models.inversionnet import InversionNet
from fwi_lightning.models.scale import normalise_velocity
from fwi_lightning.models.transform import InputTransform
from fwi_lightning.models.unet import ResidualUNet, UNet

__all__ = [
    "Answer",
    "InputTransform",
    "InversionNet",
    "ResidualUNet",
    "UNet",
    "VelocityModel",
    "normalise_velocity",
]
