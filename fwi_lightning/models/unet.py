"""The standard U-Net, as MONAI has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.networks.nets import BasicUNet
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VelocityModel
from fwi_lightning.models.blocks import Stem
from fwi_lightning.models.network import Network
from fwi_lightning.survey import Survey


class BasicUNetwork(Network):
    """MONAI's BasicUNet behind a stem: two convolutions a level, pooling, transposed convolutions upwards.

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (rows, columns) in.
        grid: (depth, width) out, at least 16 each.
        width: Channels of the first level.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], grid: tuple[int, int], width: int) -> None:
        super().__init__()
        widths = (width, width, 2 * width, 4 * width, 8 * width, width)
        self.channels = widths[4]
        self.stem = Stem(inputs, width, size, grid)
        # Batch norm, not MONAI's instance norm: the level of a map is an answer, not a nuisance.
        self.body = BasicUNet(2, width, outputs, widths, norm="batch")

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to the features of each level."""
        body = self.body
        features = [body.conv_0(self.stem(x))]
        for block in (body.down_1, body.down_2, body.down_3, body.down_4):
            features.append(block(features[-1]))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """The features of each level to (batch, outputs, *grid)."""
        body = self.body
        *skips, x = features
        for block, skip in zip((body.upcat_4, body.upcat_3, body.upcat_2, body.upcat_1), reversed(skips), strict=True):
            x = block(x, skip)
        return body.final_conv(x)


class UNet(VelocityModel):
    """The standard U-Net of five levels, as MONAI has it, at the map's resolution.

    Args:
        survey: The survey, or its dict. Its grid must have at least 16 cells each way.
        width: Channels of the first level. Default 32.
        **options: As `VelocityModel`.

    Raises:
        UserError: If the grid is too small, or `width` less than 1.
    """

    def __init__(self, survey: Survey | Mapping[str, Any], width: int = 32, **options: Any) -> None:
        super().__init__(survey, **options)
        if width < 1:
            raise UserError(f"model.width must be at least 1, got {width}.")
        if min(self.survey.grid) < 16:
            raise UserError(
                f"unet halves the map four times: the grid needs 16 cells each way, got {self.survey.grid}."
            )
        self.use(BasicUNetwork(self.inputs, self.outputs, self.size, self.survey.grid, width))
