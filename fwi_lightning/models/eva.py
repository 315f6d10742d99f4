"""EVA02, a vision transformer, on the shots laid side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VelocityModel
from fwi_lightning.models.blocks import crop
from fwi_lightning.models.network import Network
from fwi_lightning.models.pretrained import make_backbone
from fwi_lightning.survey import Survey

ENLARGEMENT = 3
"""Cells of the map across a token, after the tokens have been brought to the map's shape."""


class EvaNetwork(Network):
    """EVA02 (Fang et al., 2023, arXiv:2303.11331) with a pixel-shuffle head (Shi et al., 2016, arXiv:1609.05158).

    The channels stand side by side along the receivers: 5 shots of 70 receivers are one image of 350 columns, so that
    a token belongs to one shot, and attention compares shots. With `side_by_side` false, as behind a projector, the
    channels are the image's own. The tokens come out in the image's order and are brought to a third of the map's
    resolution; attention, not position, says what belongs where.

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (rows, columns) in.
        grid: (depth, width) out.
        backbone: timm's name of an EVA02.
        pretrained: As `make_backbone`; positions and patches are resampled.
        patch: Samples and receivers in a token.
        side_by_side: Whether channels are laid side by side.

    Raises:
        UserError: If `patch` is larger than the image, or as `make_backbone`.
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
        patch: int,
        side_by_side: bool,
    ) -> None:
        super().__init__()
        self.side_by_side, self.grid = side_by_side, grid
        rows, columns = (size[0], size[1] * inputs) if side_by_side else size
        if not 1 <= patch <= min(rows, columns):
            raise UserError(
                f"model.patch must be 1 to {min(rows, columns)} for a {rows} x {columns} image, got {patch}."
            )
        if not backbone.startswith("eva02"):
            raise UserError(f"model.backbone={backbone} is no EVA02: take one such as eva02_tiny_patch14_224.")
        image = tuple(-(-cells // patch) * patch for cells in (rows, columns))
        self.pad = (0, image[1] - columns, 0, image[0] - rows)
        channels = 1 if side_by_side else inputs
        settings = {"img_size": image, "patch_size": patch, "ref_feat_shape": None}
        self.backbone = make_backbone(backbone, channels, pretrained, **settings)
        self.backbone.prune_intermediate_layers(indices=1, prune_norm=False, prune_head=True)
        self.channels = self.backbone.embed_dim
        self.coarse = [-(-cells // ENLARGEMENT) for cells in grid]
        self.shuffle = nn.Sequential(
            nn.Conv2d(self.channels, 16 * ENLARGEMENT**2, 1), nn.PixelShuffle(ENLARGEMENT), nn.GELU()
        )
        # Smooths the joints between tokens.
        self.smooth = nn.Conv2d(16, outputs, 5, padding=2)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to the tokens as an image."""
        if self.side_by_side:
            x = torch.cat(x.unbind(dim=1), dim=-1)[:, None]
        x = functional.pad(x, self.pad)
        tokens: list[Tensor] = self.backbone.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        return tokens

    def decode(self, features: list[Tensor]) -> Tensor:
        """The tokens to (batch, outputs, *grid)."""
        tokens = functional.interpolate(features[-1], size=self.coarse, mode="bilinear")
        return crop(self.smooth(self.shuffle(tokens)), self.grid)


class Eva02(VelocityModel):
    """EVA02 from timm on the gathers side by side.

    Args:
        survey: The survey, or its dict.
        backbone: timm's name of an EVA02. Default "eva02_tiny_patch14_224".
        pretrained: True for weights from the hub, a file, or "none". Default "none".
        patch: Samples and receivers in a token. Default 14; 7 suits a projector.
        **options: As `VelocityModel`.

    Raises:
        UserError: As `EvaNetwork`.
    """

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        backbone: str = "eva02_tiny_patch14_224",
        pretrained: bool | str = "none",
        patch: int = 14,
        **options: Any,
    ) -> None:
        super().__init__(survey, **options)
        shapes = (self.inputs, self.outputs, self.size, self.survey.grid)
        self.use(EvaNetwork(*shapes, backbone, pretrained, patch, side_by_side=self.projector is None))
