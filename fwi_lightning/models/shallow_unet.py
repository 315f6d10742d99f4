"""A shallow U-Net behind a stem that is cheap on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.models.base import VelocityModel
from fwi_lightning.survey import Survey


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut (He et al., 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class Stem(nn.Module):
    """One strided convolution from long records to a small image: time shrinks most, receivers a little.

    Args:
        inputs: Input channels.
        channels: Features out.
        size: (samples, receivers) in.
        image: (rows, columns) out.
    """

    def __init__(self, inputs: int, channels: int, size: tuple[int, int], image: tuple[int, int]) -> None:
        super().__init__()
        stride = (-(-size[0] // image[0]), -(-size[1] // image[1]))
        kernel = (2 * stride[0] + 1, 2 * stride[1] + 1)
        missing = [(image[axis] - 1) * stride[axis] + kernel[axis] - size[axis] for axis in (0, 1)]
        self.pad = (*_halves(missing[1]), *_halves(missing[0]))
        self.project = nn.Conv2d(inputs, channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, samples, receivers) to (batch, channels, rows, columns)."""
        return self.project(functional.pad(x, self.pad))


def _halves(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


class UNet(nn.Module):
    """Encoder and decoder of residual blocks with skip connections (Ronneberger et al., 2015, arXiv:1505.04597).

    Args:
        channels: Channels of each level; each level has half the resolution of the one before.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.first = ResidualBlock(channels[0], channels[0])
        self.down = nn.ModuleList(ResidualBlock(upper, lower) for upper, lower in pairs)
        self.up = nn.ModuleList(ResidualBlock(upper + lower, upper) for upper, lower in reversed(pairs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels[0], height, width) to the same shape; sizes divisible by 2 ** (levels - 1)."""
        x = self.first(x)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(functional.max_pool2d(x, 2))
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], dim=1))
        return x


class Head(nn.Module):
    """Features at half resolution to one map.

    Bilinear upsampling between convolutions: blocks made by a pixel shuffle leave a chequered pattern (Odena et al.,
    2016, doi:10.23915/distill.00003).

    Args:
        inputs: Features in.
        size: (depth, width) out, cut from the middle.
        channels: Features at full resolution. Default 16.
    """

    def __init__(self, inputs: int, size: tuple[int, int], channels: int = 16) -> None:
        super().__init__()
        self.size = size
        self.body = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) to (batch, 1, depth, width)."""
        x = self.body(x)
        top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], self.size, strict=True))
        return x[..., top : top + self.size[0], left : left + self.size[1]]


class ShallowUNet(VelocityModel):
    """A small U-Net at half the resolution of the map, where convolutions cost a quarter.

    Args:
        survey: The survey, or its dict.
        time_step: Seconds between the samples that the network reads. Default 0.004.
        width: Channels of the first level, doubled at each further one. Default 24.
        levels: Resolutions, each half of the one before. Default 3.
        source_velocity: As `VelocityModel`. Default "none".
    """

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        time_step: float = 0.004,
        width: int = 24,
        levels: int = 3,
        source_velocity: str = "none",
    ) -> None:
        super().__init__(survey, time_step, source_velocity)
        unit = 2**levels  # of the map: the U-Net starts at half resolution
        rows, columns = (-(-cells // unit) * unit // 2 for cells in self.survey.grid)
        size = (self.transform.samples, self.survey.receivers)
        self.net = nn.Sequential(
            Stem(self.inputs, width, size, (rows, columns)),
            UNet([width * 2**level for level in range(levels)]),
            Head(width, self.survey.grid),
        )
