"""Changes of training samples that leave gathers and map an exact pair, and flaws of a recording."""

from fwi_lightning.data.augment.base import Augmentation, Sample
from fwi_lightning.data.augment.corruption import Corruption
from fwi_lightning.data.augment.crop import Crop
from fwi_lightning.data.augment.flip import Flip
from fwi_lightning.data.augment.monai import Monai
from fwi_lightning.data.augment.physics import Physics

__all__ = ["Augmentation", "Corruption", "Crop", "Flip", "Monai", "Physics", "Sample"]
