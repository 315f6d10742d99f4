"""InversionNet, the published baseline that every user knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.base import VelocityModel
from fwi_lightning.models.network import Network
from fwi_lightning.survey import Survey


def _convolution(inputs: int, outputs: int, kernel: Any = 3, stride: Any = 1, padding: Any = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)
    )


def _time_convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return _convolution(inputs, outputs, (kernel, 1), (stride, 1), (kernel // 2, 0))


def _upsampling(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )


class InversionNetwork(Network):
    """The layers of InversionNet (Wu and Lin, 2019, arXiv:1811.07875), as OpenFWI released them.

    Seven levels of convolutions, the first four along time only, narrow the gathers to one vector of 512; five
    transposed convolutions widen it to 80 x 80, of which the middle 70 x 70 is the answer.

    Args:
        inputs: Channels in.
        outputs: Maps out.
        size: (samples, receivers) in.
        widths: Channels of the five stages. Default (32, 64, 128, 256, 512).
    """

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], widths: Sequence[int] = (32, 64, 128, 256, 512)
    ) -> None:
        super().__init__()
        self.channels = widths[-1]
        a, b, c, d, e = widths
        self.encoder = nn.Sequential(
            _time_convolution(inputs, a, kernel=7, stride=2),
            *(_time_convolution(a, b, stride=2), _time_convolution(b, b)),
            *(_time_convolution(b, b, stride=2), _time_convolution(b, b)),
            *(_time_convolution(b, c, stride=2), _time_convolution(c, c)),
            *(_convolution(c, c, stride=2), _convolution(c, c)),
            *(_convolution(c, d, stride=2), _convolution(d, d)),
            *(_convolution(d, d, stride=2), _convolution(d, d)),
        )
        # What is left of time (7 halvings) and receivers (3 halvings) is folded into the vector: 8 x 9 for OpenFWI.
        left = (-(-size[0] // 128), -(-size[1] // 8))
        self.bottleneck = _convolution(d, e, kernel=left, padding=0)
        self.decoder = nn.Sequential(
            *(_upsampling(e, e, 5, 2, 0), _convolution(e, e)),
            *(_upsampling(e, d, 4, 2, 1), _convolution(d, d)),
            *(_upsampling(d, c, 4, 2, 1), _convolution(c, c)),
            *(_upsampling(c, b, 4, 2, 1), _convolution(b, b)),
            *(_upsampling(b, a, 4, 2, 1), _convolution(a, a)),
        )
        self.head = nn.Sequential(nn.Conv2d(a, outputs, 3, 1, 1), nn.BatchNorm2d(outputs))

    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, *size) to one vector, (batch, 512, 1, 1)."""
        return [self.bottleneck(self.encoder(x))]

    def decode(self, features: list[Tensor]) -> Tensor:
        """The vector to (batch, outputs, 70, 70)."""
        return self.head(self.decoder(features[-1])[..., 5:-5, 5:-5])


class InversionNet(VelocityModel):
    """InversionNet, layer for layer; with `time_step` at the survey's and `output="tanh"` as published.

    Args:
        survey: The survey, or its dict. Its grid must be (70, 70).
        time_step: Seconds between the samples that the network reads. Default 0.001.
        output: As `VelocityModel`. Default "tanh".
        **options: As `VelocityModel`.

    Raises:
        UserError: If the grid is another one.
    """

    def __init__(
        self, survey: Survey | Mapping[str, Any], time_step: float = 0.001, output: str = "tanh", **options: Any
    ) -> None:
        super().__init__(survey, time_step=time_step, output=output, **options)
        if self.survey.grid != (70, 70):
            raise UserError(
                f"inversionnet makes maps of (70, 70), the survey's grid is {self.survey.grid}: choose another model."
            )
        self.use(InversionNetwork(self.inputs, self.outputs, self.size))
