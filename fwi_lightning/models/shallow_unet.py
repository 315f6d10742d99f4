"""A shallow U-Net behind a stem that is cheap on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Each trace becomes a column of features, one strided convolution along time away from the gathers.

    Args:
        shots: Input channels.
        channels: Features out.
        samples: Time samples in.
        rows: Rows out.
    """

    def __init__(self, shots: int, channels: int, samples: int, rows: int) -> None:
        super().__init__()
        stride = -(-samples // rows)
        missing = rows * stride - samples
        kernel = 2 * stride + 1
        self.pad = (0, 0, missing // 2 + stride // 2 + 1, missing - missing // 2 + stride - stride // 2)
        self.project = nn.Conv2d(shots, channels, (kernel, 1), (stride, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, shots, samples, receivers) to (batch, channels, rows, receivers)."""
        return self.project(functional.pad(x, self.pad))


class UNet(nn.Module):
    """Encoder and decoder of residual blocks with skip connections (Ronneberger et al., 2015, arXiv:1505.04597).

    Args:
        channels: Channels of each level; each level has half the resolution of the one before.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
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
    """A small U-Net.

    Args:
        survey: The survey, or its dict.
        time_step: Seconds between the samples that the network reads. Default 0.004.
        width: Channels of the first level, doubled at each further one. Default 32.
        levels: Resolutions. Default 4.
    """

    def __init__(
        self, survey: Survey | Mapping[str, Any], time_step: float = 0.004, width: int = 32, levels: int = 4
    ) -> None:
        super().__init__(survey, time_step)
        self.net = nn.Identity()
