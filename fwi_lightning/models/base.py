"""What every model shares: gathers of one survey in, velocity in m/s out, all scaling inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.network import Network
from fwi_lightning.models.projector import SpectralProjector
from fwi_lightning.models.scale import VELOCITY_CENTRE, VELOCITY_HALF_RANGE
from fwi_lightning.models.source import KnownVelocity
from fwi_lightning.models.transform import InputTransform
from fwi_lightning.survey import Survey

OUTPUTS = ("linear", "sigmoid", "tanh")
PROJECTORS = ("none", "spectral")


class Answer(NamedTuple):
    """All that a model says of a batch.

    Attributes:
        velocity: (batch, 1, depth, width) in m/s.
        scale: Expected absolute error of each cell, (batch, 1, depth, width) in m/s: the scale of a Laplace
            distribution around the velocity. None without an uncertainty head.
        family: Logits (batch, families). None without a family head.
        inconsistency: Share of the network's features that the map does not lead back to, (batch,), see
            `Network.inconsistency`. None from a network that cannot be run backwards.
        ssim: Expected SSIM of the map, (batch,). None from all but ensembles.
    """

    velocity: Tensor
    scale: Tensor | None = None
    family: Tensor | None = None
    inconsistency: Tensor | None = None
    ssim: Tensor | None = None


class VelocityModel(nn.Module):
    """Base of all models.

    A subclass makes a `Network` for `self.inputs`, `self.size` and `self.outputs`, and hands it to `use`.

    Attributes:
        inputs: Channels that the network reads.
        size: Rows and columns of these channels; without a projector, samples and receivers.
        outputs: Channels that the network makes: the map, and one more for an uncertainty head.

    Args:
        survey: The survey, or its dict, whose gathers the model reads.
        time_step: Seconds between the samples that are read. Default 0.004.
        amplitudes: As `InputTransform`: "log1p", "official", "trace" or "raw". Default "log1p".
        official_family: The family whose published extremes "official" has; None for the widest. Default None.
        source_velocity: Use of the velocity at the shots, which clean gathers give away: "none", "channel" (the
            network reads it) or "constraint" (it is written into the map). Default "none".
        projector: "spectral" puts a `SpectralProjector` in front of the network. Default "none".
        spectral: Settings of that projector. Default: its own defaults.
        output: What the network's answer x becomes on the label scale, where 1500..4500 m/s are -1..1: x ("linear"),
            2 sigmoid(x) - 1 ("sigmoid") or tanh(x) ("tanh"). The last two cannot leave the range. Default "linear".
        uncertainty_head: Whether the model also gives the expected error of each cell. Default False.
        family_head: Whether the model also names the family of a sample. Default False.
        families: Names of the families for `family_head`.

    Raises:
        UserError: If a setting is none of those named.
    """

    net: Network

    def __init__(
        self,
        survey: Survey | Mapping[str, Any],
        time_step: float = 0.004,
        amplitudes: str = "log1p",
        official_family: str | None = None,
        source_velocity: str = "none",
        projector: str = "none",
        spectral: Mapping[str, Any] | None = None,
        output: str = "linear",
        uncertainty_head: bool = False,
        family_head: bool = False,
        families: Sequence[str] = (),
    ) -> None:
        super().__init__()
        for name, value, known in (("output", output, OUTPUTS), ("projector", projector, PROJECTORS)):
            if value not in known:
                raise UserError(f"model.{name} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}.")
        self.survey = survey if isinstance(survey, Survey) else Survey(**survey)
        self.transform = InputTransform(self.survey, time_step, amplitudes, official_family)
        self.known = KnownVelocity(self.survey, source_velocity)
        self.output = output
        self.families = tuple(families) if family_head else ()
        self.inputs = self.survey.shots + self.known.channels
        self.size = (self.transform.samples, self.survey.receivers)
        self.outputs = 1 + uncertainty_head
        self.projector: SpectralProjector | None = None
        if projector == "spectral":
            self.projector = SpectralProjector(self.inputs, self.size, self.survey, time_step, **(spectral or {}))
            self.inputs, self.size = self.projector.channels, self.projector.size

    def use(self, net: Network) -> None:
        """Take the network, and build the family head on its deepest features."""
        self.net = net
        self.family_head = nn.Linear(net.channels, len(self.families)) if self.families else None

    def read(self, gathers: Tensor) -> Tensor:
        """Gathers as recorded to what the network reads, (batch, inputs, *size)."""
        self.check(gathers)
        return self.prepare(self.transform(gathers), gathers)

    def prepare(self, records: Tensor, gathers: Tensor) -> Tensor:
        """What the transform has made of gathers, or pretraining of that, to what the network reads.

        Args:
            records: (batch, shots, samples, receivers).
            gathers: As recorded, for the velocity at the shots.

        Returns:
            (batch, inputs, *size).
        """
        inputs = self.known.widen(records, gathers)
        if self.projector is not None:
            inputs = self.projector(inputs)
        # Channels last: the layout in which convolutions are fastest, on CPUs and on GPUs.
        dtype = next(self.net.parameters()).dtype
        return inputs.to(dtype).contiguous(memory_format=torch.channels_last)

    def answer(self, gathers: Tensor) -> Answer:
        """Gathers (batch, shots, time, receivers) as recorded to all that the model says of them."""
        features = self.net.encode(self.read(gathers))
        # Half precision resolves no better than 16 m/s around 3000: leave it before the scale becomes m/s.
        output = self.net.decode(features).float()
        mean = output[:, :1]
        if self.output != "linear":
            mean = torch.tanh(mean / 2 if self.output == "sigmoid" else mean)
        velocity = self.known.constrain(mean * VELOCITY_HALF_RANGE + VELOCITY_CENTRE, gathers)
        # e^-7 and e are 1.4 and 4100 m/s.
        scale = output[:, 1:].clamp(-7, 1).exp() * VELOCITY_HALF_RANGE if self.outputs > 1 else None
        family = None
        if self.family_head is not None:
            family = self.family_head(features[-1].flatten(2).mean(dim=2)).float()
        return Answer(velocity, scale, family, self.net.inconsistency(features, output))

    def forward(self, gathers: Tensor) -> Tensor:
        """Gathers (batch, shots, time, receivers) as recorded to velocity (batch, 1, depth, width) in m/s."""
        return self.answer(gathers).velocity

    def lower(self, dtype: torch.dtype) -> Self:
        """Let the network compute in another precision: half the memory with torch.bfloat16 or torch.float16.

        The transform of the input and the scale of the output stay in float32.
        """
        self.net.to(dtype)
        if self.family_head is not None:
            self.family_head.to(dtype)
        return self

    def check(self, gathers: Tensor) -> None:
        """Compare the shape of gathers, (..., shots, time, receivers), with the survey's.

        Records of the survey that were thinned to the model's own time step are read too.

        Raises:
            UserError: If they differ.
        """
        expected = self.survey.gathers_shape
        readable = (expected, self.survey.thinned(self.transform.step))
        if tuple(gathers.shape[-3:]) not in readable or gathers.ndim not in (3, 4):
            raise UserError(
                f"gathers have shape {tuple(gathers.shape)}; this model reads {expected} or (batch, "
                f"{', '.join(map(str, expected))}), as (shots, time, receivers)."
            )

    @torch.no_grad()
    def predict_answer(self, gathers: Tensor, batch_size: int = 16) -> Answer:
        """All that the model says of recorded gathers, without training it and without gradients.

        Args:
            gathers: (batch, shots, time, receivers) as recorded.
            batch_size: Samples at a time. Default 16.

        Returns:
            The answer for the whole batch, float32 on the CPU.

        Raises:
            UserError: If the shape is not the survey's.
        """
        training = self.training
        self.eval()
        device = self.transform.scale.device
        parts = []
        for batch in gathers.split(batch_size):
            answer = self.answer(batch.to(device))
            parts.append([None if value is None else value.float().cpu() for value in answer])
        self.train(training)
        return Answer._make(None if values[0] is None else torch.cat(values) for values in zip(*parts, strict=True))

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
        self.check(given)
        velocity = self.predict_answer(given.reshape(-1, *given.shape[-3:]), batch_size).velocity
        velocity = velocity.reshape(*given.shape[:-3], *velocity.shape[1:])
        return velocity if isinstance(gathers, Tensor) else velocity.numpy()
