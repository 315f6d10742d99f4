"""Any hierarchical backbone of timm as the encoder of a U-Net: CAFormer, ConvNeXt, and their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VelocityModel
from fwi_lightning.models.blocks import Head, ResidualBlock, concatenate, halves
from fwi_lightning.models.network import Network
from fwi_lightning.models.pretrained import first_layer, make_backbone
from fwi_lightning.survey import Survey

STAGES = 4


class TimmUNetwork(Network):
    """A timm encoder behind a stem that shortens time alone, and a U-Net decoder.

    The backbone's first convolution, made for a stride of 4 both ways, strides along time only, from mirror-padded
    inputs to an image of the next multiple of 8 above the grid: 72 x 72 for 70 x 70, stages of 72, 36, 18 and 9 cells.
    Where the stride in time exceeds the kernel, the kernel is stretched, so that no sample is left out.

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (rows, columns) in.
        grid: (depth, width) out.
        backbone: timm's name.
        pretrained: As `make_backbone`.
        drop_path: Share of residual branches left out in training (stochastic depth).
        decoder: Channels of the decoder at the strides 4, 2 and 1 of the image.
        squeeze_excitation: Whether the decoder weighs its channels by their means (Hu et al., 2018, arXiv:1709.01507).

    Raises:
        UserError: If the backbone has other stages, a setting is out of range, or as `make_backbone`.
    """

    backbone: Any

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        grid: tuple[int, int],
        backbone: str,
        pretrained: bool | str,
        drop_path: float,
        decoder: Sequence[int],
        squeeze_excitation: bool,
    ) -> None:
        super().__init__()
        if len(decoder) != STAGES - 1 or min(decoder) < 1:
            raise UserError(
                f"model.decoder needs {STAGES - 1} numbers of channels, such as [256,128,64], got {list(decoder)}."
            )
        if not 0 <= drop_path < 1:
            raise UserError(f"model.drop_path must be at least 0 and less than 1, got {drop_path}.")
        self.backbone = make_backbone(backbone, inputs, pretrained, drop_path_rate=drop_path)
        image = tuple(-(-cells // 8) * 8 for cells in grid)
        self.pad = _stride_along_time(self.backbone, size, image)
        self.mirror = all(max(pair) < cells for pair, cells in zip((self.pad[2:], self.pad[:2]), size, strict=True))
        channels = self._check_stages(backbone, inputs, size, image)
        self.backbone.prune_intermediate_layers(indices=STAGES, prune_norm=True, prune_head=True)
        self.channels = channels[-1]
        widths = [channels[-1], *decoder]
        self.up = nn.ModuleList(
            nn.Sequential(ResidualBlock(below + skip, width), SEModule(width) if squeeze_excitation else nn.Identity())
            for (below, width), skip in zip(pairwise(widths), reversed(channels[:-1]), strict=True)
        )
        self.head = Head(widths[-1], outputs, grid)

    def _check_stages(self, backbone: str, inputs: int, size: tuple[int, int], image: tuple[int, ...]) -> list[int]:
        """Channels of the stages, after one sample of zeros has shown that each halves the one before."""
        self.backbone.eval()
        with torch.no_grad():
            try:
                stages = self.encode(torch.zeros(1, inputs, *size))
            except (RuntimeError, AssertionError, TypeError) as error:
                raise UserError(
                    f"model.backbone={backbone} cannot read a {image[0]} x {image[1]} image: {error}."
                ) from None
        self.backbone.train()
        found = [tuple(stage.shape[-2:]) for stage in stages]
        wanted = [tuple(cells // 2**level for cells in image) for level in range(STAGES)]
        if found != wanted:
            strides = [stage["reduction"] for stage in _stages(self.backbone.feature_info)]
            raise UserError(
                f"model.backbone={backbone} has strides {strides} and gives features of {found}; the decoder needs "
                f"four stages of {wanted}, as backbones with strides [4, 8, 16, 32] give them."
            )
        return [stage.shape[1] for stage in stages]

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to the features of the four stages."""
        x = functional.pad(x, self.pad, mode="reflect" if self.mirror else "replicate")
        stages: list[Tensor] = self.backbone.forward_intermediates(x, indices=STAGES, intermediates_only=True)
        return stages

    def decode(self, features: list[Tensor]) -> Tensor:
        """The features of the stages to (batch, outputs, *grid)."""
        *skips, x = features
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(concatenate(x, skip))
        return self.head(x)


def _stages(info: Any) -> list[dict[str, Any]]:
    """Timm's facts of the stages: a list, or an object that holds one."""
    return info if isinstance(info, list) else info.info


def _stride_along_time(backbone: nn.Module, size: tuple[int, int], image: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Let the first convolution make `image` of `size`; the padding (left, right, top, bottom) that it then needs."""
    name = first_layer(backbone)
    old = backbone.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    stride = -(-size[0] // image[0])
    kernel = (max(old.kernel_size[0], stride), old.kernel_size[1])
    new = nn.Conv2d(old.in_channels, old.out_channels, kernel, (stride, 1), bias=old.bias is not None)
    weight = old.weight.detach()
    if kernel != old.kernel_size:
        # Stretched along time, and thinned so that a constant gives what it gave.
        weight = functional.interpolate(weight, size=kernel, mode="bilinear") * (old.kernel_size[0] / kernel[0])
    with torch.no_grad():
        new.weight.copy_(weight)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    backbone.set_submodule(name, new)
    rows = (image[0] - 1) * stride + kernel[0] - size[0]
    columns = image[1] - 1 + kernel[1] - size[1]
    return (*halves(columns), *halves(rows))


class TimmUNet(VelocityModel):
    """A timm backbone, such as CAFormer or ConvNeXt, with a U-Net decoder.

    Args:
        survey: The survey, or its dict.
        backbone: timm's name of a backbone with four stages at strides 4, 8, 16, 32. Default "caformer_s18".
        pretrained: True for weights from the hub, a file, or "none". Default "none".
        drop_path: Share of residual branches left out in training. Default 0.1.
        decoder: Channels of the decoder, coarse to fine. Default (256, 128, 64).
        squeeze_excitation: Whether the decoder weighs its channels by their means. Default False.
        **options: As `VelocityModel`.

    Raises:
        UserError: As `TimmUNetwork`.
    """

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        backbone: str = "caformer_s18",
        pretrained: bool | str = "none",
        drop_path: float = 0.1,
        decoder: Sequence[int] = (256, 128, 64),
        squeeze_excitation: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(survey, **options)
        shapes = (self.inputs, self.outputs, self.size, self.survey.grid)
        self.use(TimmUNetwork(*shapes, backbone, pretrained, drop_path, decoder, squeeze_excitation))
