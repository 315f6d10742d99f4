"""Parts that several networks share: residual block, stem, head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        self.pad = (*halves(missing[1]), *halves(missing[0]))
        self.project = nn.Conv2d(inputs, channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, samples, receivers) to (batch, channels, rows, columns)."""
        return self.project(functional.pad(x, self.pad))


def halves(total: int) -> tuple[int, int]:
    """Two numbers that differ by at most one, the smaller first, with this sum."""
    return total // 2, total - total // 2


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of (..., rows, columns)."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]


class Head(nn.Module):
    """Features at the map's resolution, or at half of it, to maps.

    Bilinear upsampling between convolutions: blocks made by a pixel shuffle leave a chequered pattern (Odena et al.,
    2016, doi:10.23915/distill.00003).

    Args:
        inputs: Features in.
        outputs: Maps out.
        size: (depth, width) out, cut from the middle.
        upsample: Cells of the map across a cell of the features: 1 or 2. Default 1.
        channels: Features at full resolution. Default 16.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], upsample: int = 1, channels: int = 16) -> None:
        super().__init__()
        self.size = size
        self.body = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.Upsample(scale_factor=upsample, mode="bilinear") if upsample > 1 else nn.Identity(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) to (batch, outputs, depth, width)."""
        return crop(self.body(x), self.size)


def concatenate(coarse: Tensor, fine: Tensor) -> Tensor:
    """Double the resolution of coarse features and put the fine ones beside them."""
    return torch.cat([functional.interpolate(coarse, scale_factor=2), fine], dim=1)
