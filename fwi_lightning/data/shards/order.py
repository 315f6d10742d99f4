"""The order in which shards are read: mixed enough to train, local enough to read from a disk or a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.sampler import EpochSampler


class Windows:
    """In each epoch shards are shuffled and taken a few at a time: a window, whose samples are shuffled together.

    Each sample has its place once in an epoch, whatever sizes the shards have. All depends on (seed, epoch) alone.

    Args:
        sizes: Samples of each shard; places count through them in this order.
        width: Shards in a window, at least 1; as many as there are shuffle all samples together.
        seed: Whole number, 0 or more.
    """

    def __init__(self, sizes: Sequence[int], width: int, seed: int) -> None:
        self.width, self.seed = width, seed
        self.ends = np.cumsum(sizes)
        self.starts = self.ends - np.asarray(sizes)
        self._shards = lru_cache(maxsize=2)(self._shuffled)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_shards"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._shards = lru_cache(maxsize=2)(self._shuffled)

    def shard(self, place: int) -> int:
        """The shard that a place is in."""
        return int(np.searchsorted(self.ends, place, side="right"))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """(samples,) the places of an epoch in its order."""
        generator = np.random.default_rng((self.seed, epoch, 1))
        shards = self._shards(epoch)[0]
        windows = [self.places(shards[first : first + self.width]) for first in range(0, len(shards), self.width)]
        return np.concatenate([generator.permutation(places) for places in windows])

    def number(self, epoch: int, place: int) -> int:
        """Which window of an epoch a place is in, from 0."""
        return int(self._shards(epoch)[1][self.shard(place)]) // self.width

    def shards(self, epoch: int, number: int) -> list[int]:
        """The shards of a window; none after the last window."""
        shards: list[int] = self._shards(epoch)[0][number * self.width : (number + 1) * self.width].tolist()
        return shards

    def neighbours(self, epoch: int, place: int) -> NDArray[np.int64]:
        """The places of the window that a place is in, ascending."""
        return self.places(self.shards(epoch, self.number(epoch, place)))

    def places(self, shards: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of some shards, ascending."""
        return np.concatenate([np.arange(self.starts[shard], self.ends[shard]) for shard in sorted(shards)])

    def _shuffled(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards of an epoch in their order, and the position of each shard in it."""
        shards = np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.ends))
        return shards, np.argsort(shards)


class WindowSampler(EpochSampler):
    """Training order of shards; apart from the order itself, what `EpochSampler` is.

    Args:
        windows: The order.
        num_replicas: Number of ranks. Default 1.
        rank: This rank. Default 0.
    """

    def __init__(self, windows: Windows, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(int(windows.ends[-1]), windows.seed, num_replicas, rank)
        self.windows = windows

    def order(self) -> NDArray[np.int64]:
        """(samples,) all samples of the epoch in the order of all ranks together."""
        return self.windows.order(self.epoch)
