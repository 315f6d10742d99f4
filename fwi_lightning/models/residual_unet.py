"""Residual U-Nets of any depth, shallow or five levels deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VelocityModel
from fwi_lightning.models.blocks import Head, ResidualBlock, Stem, concatenate
from fwi_lightning.models.network import Network
from fwi_lightning.survey import Survey


class ResidualUNetwork(Network):
    """A stem, then a U-Net of residual blocks (Ronneberger et al., 2015, arXiv:1505.04597).

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (rows, columns) in.
        grid: (depth, width) out.
        widths: Channels of each level; each level has half the resolution of the one before.
        coarseness: Cells of the map across a cell of the first level: 1 or 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        grid: tuple[int, int],
        widths: Sequence[int],
        coarseness: int,
    ) -> None:
        super().__init__()
        unit = 2 ** (len(widths) - 1) * coarseness
        rows, columns = (-(-cells // unit) * unit // coarseness for cells in grid)
        pairs = list(pairwise(widths))
        self.channels = widths[-1]
        self.stem = Stem(inputs, widths[0], size, (rows, columns))
        self.first = ResidualBlock(widths[0], widths[0])
        self.down = nn.ModuleList(ResidualBlock(upper, lower) for upper, lower in pairs)
        self.up = nn.ModuleList(ResidualBlock(upper + lower, upper) for upper, lower in reversed(pairs))
        self.head = Head(widths[0], outputs, grid, coarseness)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to the features of each level."""
        return self.deepen(self.stem(x))

    def deepen(self, x: Tensor) -> list[Tensor]:
        """What the stem has made of the inputs, (batch, widths[0], rows, columns), to the features of each level."""
        features = [self.first(x)]
        for block in self.down:
            features.append(block(functional.max_pool2d(features[-1], 2)))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """The features of each level to (batch, outputs, *grid)."""
        *skips, x = features
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(concatenate(x, skip))
        return self.head(x)


class ResidualUNet(VelocityModel):
    """A U-Net of residual blocks behind a stem that is cheap on a CPU.

    Args:
        survey: The survey, or its dict.
        width: Channels of the first level, doubled at each further one. Default 24.
        levels: Resolutions, each half of the one before. Default 3.
        coarseness: Cells of the map across a cell of the first level, 1 or 2; at 2 convolutions cost a quarter.
            Default 2.
        **options: As `VelocityModel`.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        width: int = 24,
        levels: int = 3,
        coarseness: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(survey, **options)
        for name, value, least in (("width", width, 1), ("levels", levels, 1)):
            if value < least:
                raise UserError(f"model.{name} must be at least {least}, got {value}.")
        if coarseness not in (1, 2):
            raise UserError(f"model.coarseness must be 1 or 2, got {coarseness}.")
        most = (min(self.survey.grid) // coarseness).bit_length()
        if levels > most:
            raise UserError(
                f"model.levels={levels} with model.coarseness={coarseness} leaves less than a cell of the grid "
                f"{self.survey.grid}: take at most {most}."
            )
        widths = [width * 2**level for level in range(levels)]
        self.use(ResidualUNetwork(self.inputs, self.outputs, self.size, self.survey.grid, widths, coarseness))
