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


class TimeStem(nn.Module):
    """A strided convolution along time: the shortest way from long records to an image as small as the map.

    Args:
        shots: Input channels.
        channels: Features out.
        samples: Time samples in.
        receivers: Receivers in.
        size: (rows, columns) out.
    """

    def __init__(self, shots: int, channels: int, samples: int, receivers: int, size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = size
        stride = -(-samples // rows)
        kernel = 2 * stride + 1
        self.pad = (*_halves(columns + 2 - receivers), *_halves((rows - 1) * stride + kernel - samples))
        self.project = nn.Conv2d(shots, channels, (kernel, 3), (stride, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, shots, samples, receivers) to (batch, channels, rows, columns)."""
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


class ShallowUNet(VelocityModel):
    """A small U-Net over an image that is a little larger than the map.

    Args:
        survey: The survey, or its dict.
        time_step: Seconds between the samples that the network reads. Default 0.004.
        width: Channels of the first level, doubled at each further one. Default 16.
        levels: Resolutions. Default 4.
    """

    def __init__(
        self, survey: Survey | Mapping[str, Any], time_step: float = 0.004, width: int = 16, levels: int = 4
    ) -> None:
        super().__init__(survey, time_step)
        channels = [width * 2**level for level in range(levels)]
        depth, columns = self.survey.grid
        unit = 2 ** (levels - 1)
        size = (-(-depth // unit) * unit, -(-columns // unit) * unit)
        stem = TimeStem(self.survey.shots, width, self.transform.samples, self.survey.receivers, size)
        self.net = nn.Sequential(stem, UNet(channels), nn.Conv2d(width, 1, 1), Crop(depth, columns))


class Crop(nn.Module):
    """The middle of an image.

    Args:
        rows: Rows left.
        columns: Columns left.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, channels, rows, columns)."""
        top, left = (x.shape[-2] - self.rows) // 2, (x.shape[-1] - self.columns) // 2
        return x[..., top : top + self.rows, left : left + self.columns]
