"""The interface of all networks: an encoder and a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """Inputs to maps in two halves, so that other heads can read the features in between.

    Attributes:
        channels: Channels of the deepest features.
    """

    channels: int

    @abstractmethod
    def encode(self, x: Tensor) -> list[Tensor]:
        """(batch, inputs, rows, columns) to features (batch, channels, ...), finest first, deepest last."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """What `encode` gave to (batch, outputs, depth, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) to (batch, outputs, depth, width)."""
        return self.decode(self.encode(x))
