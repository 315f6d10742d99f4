"""An invertible U-Net: behind its stem, features and map (with what the map leaves out) are one and the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import Answer, VelocityModel
from fwi_lightning.models.blocks import ResidualBlock, Stem, crop, halves
from fwi_lightning.models.network import Network
from fwi_lightning.survey import Survey


class Coupling(nn.Module):
    """Additive coupling (Dinh et al., 2015, arXiv:1410.8516): b <- b + F(a), then a <- a + G(b), a and b the halves.

    F and G are two 3 x 3 convolutions each, mirrored at the edges. Their spectral norms are held at 1 (Miyato et al.,
    2018, arXiv:1802.05957; of the kernel as a matrix), so that the inverse magnifies rounding little.

    Args:
        channels: Channels, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _convolutions(channels // 2), _convolutions(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same shape."""
        a, b = x.chunk(2, dim=1)
        b = b + self.first(a)
        return torch.cat([a + self.second(b), b], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """What gave y, the same shape."""
        a, b = y.chunk(2, dim=1)
        a = a - self.second(b)
        return torch.cat([a, b - self.first(a)], dim=1)


class Couplings(nn.Sequential):
    """Several `Coupling` on end."""

    def inverse(self, y: Tensor) -> Tensor:
        """What gave y, the same shape."""
        for coupling in reversed(list(self)):
            assert isinstance(coupling, Coupling)
            y = coupling.inverse(y)
        return y


def _convolutions(channels: int) -> nn.Sequential:
    first, second = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))
    return nn.Sequential(spectral_norm(first), nn.ELU(), spectral_norm(second))


def haar(x: Tensor) -> Tensor:
    """Orthonormal Haar transform of 2 x 2 cells: (batch, c, 2 h, 2 w) to (batch, 4 c, h, w), means first."""
    return torch.cat(_hadamard(*(x[..., row::2, column::2] for row in (0, 1) for column in (0, 1))), dim=1)


def unhaar(y: Tensor) -> Tensor:
    """The inverse of `haar`: (batch, 4 c, h, w) to (batch, c, 2 h, 2 w)."""
    cells = torch.stack(_hadamard(*y.chunk(4, dim=1)), dim=2)
    return functional.pixel_shuffle(cells.flatten(1, 2), 2)


def _hadamard(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A symmetric orthonormal matrix, and so its own inverse."""
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


class InvertibleBody(nn.Module):
    """A U-Net that can be run backwards (Etmann et al., 2020, arXiv:2005.05220).

    On its way down, each level keeps half of its channels for the way up and hands the other half on, through `haar`.

    Args:
        channels: Channels of the first level, an even number; doubled at each further one.
        levels: Resolutions, each half of the one before.
        blocks: Couplings of a level, on the way down and on the way up each.
    """

    down: Any
    up: Any

    def __init__(self, channels: int, levels: int, blocks: int) -> None:
        super().__init__()
        self.width = channels
        self.down, self.up = (
            nn.ModuleList(Couplings(*(Coupling(channels * 2**level) for _ in range(blocks))) for level in range(levels))
            for _ in range(2)
        )

    def descend(self, x: Tensor, inverse: bool = False) -> list[Tensor]:
        """(batch, channels, rows, columns) to what each level keeps, the deepest all; `inverse`: through the way up."""
        kept = []
        for level in range(len(self.down)):
            x = self.up[level].inverse(x) if inverse else self.down[level](x)
            if level < len(self.down) - 1:
                side, x = x.chunk(2, dim=1)
                kept.append(side)
                x = haar(x)
        return [*kept, x]

    def ascend(self, kept: list[Tensor], inverse: bool = False) -> Tensor:
        """What `descend` gave to (batch, channels, rows, columns); `inverse`: through the way down."""
        sides, x = list(kept[:-1]), kept[-1]
        for level in reversed(range(len(kept))):
            if level < len(kept) - 1:
                x = torch.cat([sides.pop(), unhaar(x)], dim=1)
            x = self.down[level].inverse(x) if inverse else self.up[level](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to the same shape."""
        return self.ascend(self.descend(x))

    def inverse(self, y: Tensor) -> Tensor:
        """What gave y, the same shape."""
        return self.ascend(self.descend(y, inverse=True), inverse=True)


class InvertibleUNetwork(Network):
    """A stem, which is not invertible, and a body, which is.

    The stem makes features x of the gathers; the body makes y = f(x) of the same shape. The first channels of y are the
    maps (their Haar transform with `coarseness` 2), the others z what the maps leave out. Cutting the maps to the grid
    loses the cells beyond it; mirroring puts likely ones there.

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (rows, columns) in.
        grid: (depth, width) out.
        width: Channels of the first level, doubled at each further one; a multiple of 4 (of 2 with one level).
        levels: Resolutions, each half of the one before.
        blocks: Couplings of a level, on the way down and on the way up each.
        coarseness: Cells of the map across a cell of the first level: 1 or 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        grid: tuple[int, int],
        width: int,
        levels: int,
        blocks: int,
        coarseness: int,
    ) -> None:
        super().__init__()
        unit = 2 ** (levels - 1) * coarseness
        image = [-(-cells // unit) * unit for cells in grid]
        rows, columns = (cells // coarseness for cells in image)
        self.grid, self.coarseness, self.spoken = grid, coarseness, outputs * coarseness**2
        self.channels = width * 2 ** (levels - 1)
        self.pad = (*halves(image[1] - grid[1]), *halves(image[0] - grid[0]))
        self.stem = nn.Sequential(
            Stem(inputs, width, size, (rows, columns)), ResidualBlock(width, width), nn.Conv2d(width, width, 1)
        )
        self.body = InvertibleBody(width, levels, blocks)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to the stem's features and what each level of the body keeps."""
        features = self.stem(x)
        return [features, *self.body.descend(features)]

    def decode(self, features: list[Tensor]) -> Tensor:
        """What `encode` gave to (batch, outputs, *grid)."""
        maps = self.body.ascend(features[1:])[:, : self.spoken]
        return crop(unhaar(maps) if self.coarseness == 2 else maps, self.grid)

    def features_of(self, maps: Tensor) -> Tensor:
        """Maps (batch, outputs, *grid) back to the stem's features, (batch, width, rows, columns), with z = 0."""
        spoken = functional.pad(maps, self.pad, mode="reflect")
        spoken = haar(spoken) if self.coarseness == 2 else spoken
        silent = self.body.width - self.spoken
        return self.body.inverse(functional.pad(spoken, (0, 0, 0, 0, 0, silent)))

    def inconsistency(self, features: list[Tensor], maps: Tensor) -> Tensor:
        """Relative rms difference between the stem's features and those that the maps go back to, (batch,)."""
        given = features[0].flatten(1).float()
        back = self.features_of(maps.to(features[0].dtype)).flatten(1).float()
        return (given - back).norm(dim=1) / given.norm(dim=1).clamp_min(1e-6)


class InvertibleUNet(VelocityModel):
    """An invertible U-Net behind a stem.

    Args:
        survey: The survey, or its dict.
        width: Channels of the first level, doubled at each further one; a multiple of 4. Default 32.
        levels: Resolutions, each half of the one before. Default 3.
        blocks: Couplings of a level, on the way down and on the way up each. Default 1.
        coarseness: Cells of the map across a cell of the first level, 1 or 2. Default 2.
        **options: As `VelocityModel`.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        width: int = 32,
        levels: int = 3,
        blocks: int = 1,
        coarseness: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(survey, **options)
        for name, value in (("levels", levels), ("blocks", blocks)):
            if value < 1:
                raise UserError(f"model.{name} must be at least 1, got {value}.")
        if coarseness not in (1, 2):
            raise UserError(f"model.coarseness must be 1 or 2, got {coarseness}.")
        least = -(-self.outputs * coarseness**2 // 4) * 4
        if width < least or width % 4:
            raise UserError(
                f"model.width must be a multiple of 4 and at least {least}, got {width}: take "
                f"{max(least, -(-width // 4) * 4)}."
            )
        shapes = (self.inputs, self.outputs, self.size, self.survey.grid)
        self.use(InvertibleUNetwork(*shapes, width, levels, blocks, coarseness))

    def answer(self, gathers: Tensor) -> Answer:
        """As `VelocityModel.answer`; the weights of spectral norm 1 are computed once for both directions."""
        with parametrize.cached():
            return super().answer(gathers)
