"""Networks from gathers to velocity: stems, encoders, decoders, heads. Nothing here knows Lightning or files."""

from fwi_lightning.models.base import Answer, VelocityModel
from fwi_lightning.models.eva import Eva02
from fwi_lightning.models.inversionnet import InversionNet
from fwi_lightning.models.invertible import InvertibleUNet
from fwi_lightning.models.refiner import Refiner
from fwi_lightning.models.scale import normalise_velocity
from fwi_lightning.models.timm_unet import TimmUNet
from fwi_lightning.models.transform import InputTransform
from fwi_lightning.models.unet import ResidualUNet, UNet

__all__ = [
    "Answer",
    "Eva02",
    "InputTransform",
    "InversionNet",
    "InvertibleUNet",
    "Refiner",
    "ResidualUNet",
    "TimmUNet",
    "UNet",
    "VelocityModel",
    "normalise_velocity",
]
