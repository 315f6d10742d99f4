"""What every model shares: gathers of one survey in, velocity in m/s out, all scaling inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.scale import VELOCITY_CENTRE, VELOCITY_HALF_RANGE
from fwi_lightning.models.source import KnownVelocity
from fwi_lightning.survey import Survey


class InputTransform(nn.Module):
    """Gathers as recorded to what a network reads: fewer samples, a compressed range, unit scale.

    Every `step`-th sample is kept: the wavelet has next to nothing above three times its peak frequency (45 Hz for
    OpenFWI), so 4 ms lose nothing. Then sign(x) log1p(|x|), the official transform of OpenFWI (Deng et al., 2022,
    arXiv:2111.02926), which lets the reflections be seen beside the direct wave, and a division by the standard
    deviation that the training data has at each time: late arrivals count as much as early ones.

    Args:
        survey: The survey of the gathers.
        time_step: Seconds between the samples that the network reads, a multiple of the survey's. Default 0.004.

    Raises:
        UserError: If `time_step` is not a multiple of the survey's.
    """

    scale: Tensor

    def __init__(self, survey: Survey, time_step: float = 0.004) -> None:
        super().__init__()
        self.step = round(time_step / survey.time_step)
        if self.step < 1 or not np.isclose(self.step * survey.time_step, time_step):
            raise UserError(
                f"model.time_step must be a multiple of the survey's {survey.time_step:g} s, got {time_step:g} s."
            )
        self.samples = -(-survey.samples // self.step)
        self.register_buffer("scale", torch.ones(self.samples, 1))

    def compress(self, gathers: Tensor) -> Tensor:
        """The transform without its scale: (batch, shots, time, receivers) to (batch, shots, samples, receivers)."""
        kept = gathers[..., :: self.step, :].float()
        return kept.sign() * kept.abs().log1p()

    @torch.no_grad()
    def fit(self, gathers: Tensor) -> None:
        """Take the scale from training gathers, (batch, shots, time, receivers)."""
        deviation = self.compress(gathers).square().mean(dim=(0, 1, 3)).sqrt()
        # A floor: row 999 is stored as zeros in some families, and only the source's trace lives in the first rows.
        self.scale.copy_(deviation.clamp_min(0.1 * deviation.max())[:, None])

    def forward(self, gathers: Tensor) -> Tensor:
        """(batch, shots, time, receivers) as recorded to (batch, shots, samples, receivers) of unit scale."""
        return self.compress(gathers) / self.scale


class VelocityModel(nn.Module):
    """Base of all models. A subclass sets `self.net`: transformed gathers to normalised velocity.

    Attributes:
        inputs: Channels that the network reads: the shots, and one more for `source_velocity="channel"`.

    Args:
        survey: The survey, or its dict, whose gathers the model reads.
        time_step: Seconds between the samples that the network reads. Default 0.004.
        source_velocity: Use of the velocity at the shots, which clean gathers give away: "none", "channel" (the
            network reads it) or "constraint" (it is written into the map). Default "none".
    """

    net: nn.Module

    def __init__(
        self, survey: Survey | Mapping[str, Any], time_step: float = 0.004, source_velocity: str = "none"
    ) -> None:
        super().__init__()
        self.survey = survey if isinstance(survey, Survey) else Survey(**survey)
        self.transform = InputTransform(self.survey, time_step)
        self.known = KnownVelocity(self.survey, source_velocity)
        self.inputs = self.survey.shots + self.known.channels

    def forward(self, gathers: Tensor) -> Tensor:
        """Gathers (batch, shots, time, receivers) as recorded to velocity (batch, 1, depth, width) in m/s."""
        inputs = self.known.widen(self.transform(gathers), gathers)
        # Channels last: the layout in which convolutions are fastest, on CPUs and on GPUs.
        output = self.net(inputs.contiguous(memory_format=torch.channels_last))
        # Half precision resolves no better than 16 m/s around 3000: leave it before the scale becomes m/s.
        velocity = output.float() * VELOCITY_HALF_RANGE + VELOCITY_CENTRE
        return self.known.constrain(velocity, gathers)

    @torch.no_grad()
    def predict(self, gathers: Tensor | ArrayLike, batch_size: int = 16) -> Tensor | NDArray[np.float32]:
        """Velocity maps of recorded gathers.

        Args:
            gathers: (shots, time, receivers) or (batch, shots, time, receivers), tensor or array, as recorded.
            batch_size: Samples at a time. Default 16.

        Returns:
            (1, depth, width) or (batch, 1, depth, width) float32 in m/s: a tensor for a tensor, else an array.

        Raises:
            UserError: If the shape is not the survey's.
        """
        given = torch.as_tensor(gathers)
        if given.shape[-3:] != self.survey.gathers_shape or given.ndim not in (3, 4):
            expected = self.survey.gathers_shape
            raise UserError(
                f"gathers have shape {tuple(given.shape)}; this model reads {expected} or (batch, "
                f"{', '.join(map(str, expected))}), as (shots, time, receivers)."
            )
        training = self.training
        self.eval()
        device = self.transform.scale.device
        batches = given.reshape(-1, *self.survey.gathers_shape).split(batch_size)
        velocity = torch.cat([self(batch.to(device)).cpu() for batch in batches])
        self.train(training)
        velocity = velocity.reshape(*given.shape[:-3], *velocity.shape[1:])
        return velocity if isinstance(gathers, Tensor) else velocity.numpy()
