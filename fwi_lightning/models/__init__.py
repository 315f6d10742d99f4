"""Networks from gathers to velocity: stems, encoders, decoders, heads. Nothing here knows Lightning or files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fwi_lightning.models.base import Answer, VelocityModel
    from fwi_lightning.models.eva import Eva02
    from fwi_lightning.models.inversionnet import InversionNet
    from fwi_lightning.models.invertible import InvertibleUNet
    from fwi_lightning.models.refiner import Refiner
    from fwi_lightning.models.residual_unet import ResidualUNet
    from fwi_lightning.models.scale import normalise_velocity
    from fwi_lightning.models.timm_unet import TimmUNet
    from fwi_lightning.models.transform import InputTransform
    from fwi_lightning.models.unet import UNet

_HOMES = {
    "Answer": "base",
    "Eva02": "eva",
    "InputTransform": "transform",
    "InversionNet": "inversionnet",
    "InvertibleUNet": "invertible",
    "Refiner": "refiner",
    "ResidualUNet": "residual_unet",
    "TimmUNet": "timm_unet",
    "UNet": "unet",
    "VelocityModel": "base",
    "normalise_velocity": "scale",
}

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


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: one network needs neither the other ones' timm nor their MONAI."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
