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

    def inconsistency(self, features: list[Tensor], maps: Tensor) -> Tensor | None:
        """How much of the features, as a share of their rms, the maps do not lead back to, (batch,).

        Args:
            features: What `encode` gave.
            maps: What `decode` made of it, (batch, outputs, depth, width).

        Returns:
            0 where map and features are the same thing; None from a network that cannot be run backwards.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) to (batch, outputs, depth, width)."""
        return self.decode(self.encode(x))
