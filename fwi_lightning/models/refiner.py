"""The learned residual refiner: a network that reads where another one's map fails to explain the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import Answer, VelocityModel
from fwi_lightning.models.blocks import Stem
from fwi_lightning.models.residual_unet import ResidualUNetwork
from fwi_lightning.models.scale import VELOCITY_HALF_RANGE, normalise_velocity
from fwi_lightning.models.transform import InputTransform
from fwi_lightning.survey import Survey

IMAGES = 2
"""Images that are read: the map and the gradient."""


class RefinerNetwork(ResidualUNetwork):
    """A residual U-Net with a second stem for images on the map's grid, whose answer begins at zero.

    Args:
        inputs: Channels of records in.
        size: (samples, receivers) in.
        grid: (depth, width) of the images, and out.
        widths: As `ResidualUNetwork`.
        coarseness: As `ResidualUNetwork`.
    """

    def __init__(
        self, inputs: int, size: tuple[int, int], grid: tuple[int, int], widths: Sequence[int], coarseness: int
    ) -> None:
        super().__init__(inputs, 1, size, grid, widths, coarseness)
        unit = 2 ** (len(widths) - 1) * coarseness
        rows, columns = (-(-cells // unit) * unit // coarseness for cells in grid)
        self.image_stem = Stem(IMAGES, widths[0], grid, (rows, columns))
        last = self.head.body[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def encode(self, x: Tensor, images: Tensor | None = None) -> list[Tensor]:
        """Records (batch, inputs, *size) and images (batch, `IMAGES`, *grid) to the features of each level."""
        assert images is not None
        # Two convolutions added up are one over both kinds of channels.
        return self.deepen(self.stem(x) + self.image_stem(images))


class Refiner(VelocityModel):
    """Corrects a map x of a record d, knowing F(x), the record that x would give.

    The network reads d and d - F(x), each compressed and scaled as gathers are, x on the label scale, and the gradient
    of the misfit at x, over its rms in the training data at each depth; it answers x's correction. The idea is that of
    learned iterative reconstruction (Adler and Oektem, 2017, doi:10.1088/1361-6420/aa9581).

    Args:
        survey: The survey, or its dict.
        width: Channels of the first level, doubled at each further one. Default 16.
        levels: Resolutions, each half of the one before. Default 3.
        coarseness: Cells of the map across a cell of the first level, 1 or 2. Default 2.
        time_step: As `VelocityModel`. Default 0.004.
        amplitudes: As `VelocityModel`. Default "log1p".
        families: As `VelocityModel`; not used.

    Raises:
        UserError: If a setting is out of range.
    """

    gradient_scale: Tensor
    net: RefinerNetwork

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        width: int = 16,
        levels: int = 3,
        coarseness: int = 2,
        time_step: float = 0.004,
        amplitudes: str = "log1p",
        families: Sequence[str] = (),
    ) -> None:
        super().__init__(survey, time_step, amplitudes)
        for name, value in (("width", width), ("levels", levels)):
            if value < 1:
                raise UserError(f"model.{name} must be at least 1, got {value}.")
        if coarseness not in (1, 2):
            raise UserError(f"model.coarseness must be 1 or 2, got {coarseness}.")
        grid = self.survey.grid
        thin = replace(self.survey, samples=self.transform.samples, time_step=time_step)
        self.residual_transform = InputTransform(thin, time_step, amplitudes)
        self.register_buffer("gradient_scale", torch.ones(grid[0], 1))
        widths = [width * 2**level for level in range(levels)]
        self.use(RefinerNetwork(2 * self.inputs, self.size, grid, widths, coarseness))

    @property
    def step(self) -> int:
        """Every which sample of a residual is read."""
        return self.transform.step

    @torch.no_grad()
    def fit(self, residual: Tensor, gradient: Tensor) -> None:
        """Take the scales of what only a refiner reads from training samples; shapes as `correct`."""
        self.residual_transform.fit(self.residual_transform.mean_squares(residual).mean(dim=0))
        rms = gradient.square().mean(dim=(0, 1, 3)).sqrt()
        self.gradient_scale.copy_(rms.clamp_min(torch.finfo(rms.dtype).tiny)[:, None])

    def correct(self, gathers: Tensor, start: Tensor, residual: Tensor, gradient: Tensor) -> Answer:
        """The corrected map.

        Args:
            gathers: (batch, shots, time, receivers) as recorded.
            start: (batch, 1, depth, width) in m/s, the map to correct.
            residual: (batch, shots, samples, receivers), every `step`-th sample of the record less that of `start`.
            gradient: (batch, 1, depth, width), of the misfit at `start`; see `inversion.starts.look_at`.

        Returns:
            An answer with nothing but the velocity.
        """
        self.check(gathers)
        dtype = next(self.net.parameters()).dtype
        records = torch.cat([self.transform(gathers), self.residual_transform(residual)], dim=1)
        steepness = gradient / self.gradient_scale
        # The cells beside the shots stand out by orders of magnitude.
        images = torch.cat([normalise_velocity(start), steepness.sign() * steepness.abs().log1p()], dim=1)
        channels_last = torch.channels_last
        features = self.net.encode(
            records.to(dtype).contiguous(memory_format=channels_last),
            images.to(dtype).contiguous(memory_format=channels_last),
        )
        return Answer(start + self.net.decode(features).float() * VELOCITY_HALF_RANGE)

    def answer(self, gathers: Tensor) -> NoReturn:
        """A refiner makes no map of gathers alone.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "a refiner corrects the maps of another model: train it with python -m fwi_lightning refiner network=FILE, "
            "and use it with inference.refiner.ckpt=FILE."
        )
