"""Samples of shards by number, and as the source of training samples that outlives a broken shard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.augment.base import Sample
from fwi_lightning.data.dataset import GathersDataset, Lot
from fwi_lightning.data.shards.index import Index
from fwi_lightning.data.shards.layout import GATHERS, ILLUMINATION, VELOCITY, MismatchError
from fwi_lightning.data.shards.order import Windows
from fwi_lightning.data.shards.store import BrokenShardError, ShardStore
from fwi_lightning.data.training import Recorded, random_numbers
from fwi_lightning.errors import UserError

log = logging.getLogger(__name__)


class ShardDataset(GathersDataset):
    """The samples of some shards, in their order; the same items as a `GathersDataset` of the original files has.

    Attributes:
        shards: Numbers of the shards.

    Args:
        index: The index.
        store: Where the shards are.
        shards: Numbers of the shards to use.
        families: Names that `family` counts in.
        illumination: Whether items have the illumination. Default False.
    """

    unreadable = (BrokenShardError,)

    def __init__(
        self,
        index: Index,
        store: ShardStore,
        shards: Sequence[int],
        families: Sequence[str],
        illumination: bool = False,
    ) -> None:
        rows = [index.shards[shard].rows for shard in shards]
        super().__init__(index.parts, np.concatenate(rows), families)
        self.layout, self.store, self.shards = index.layout, store, list(shards)
        self.wanted = [GATHERS, VELOCITY, *([ILLUMINATION] if illumination else [])]
        self.starts = np.cumsum([0, *(len(numbers) for numbers in rows)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            BrokenShardError: If its shard cannot be read or is not what the index says.
        """
        arrays = self._read(index, self.wanted)
        part, _ = self.locate(index)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return tensors | {"family": self._family[part.family], "index": int(self.rows[index])}

    def gathers(self, index: int) -> torch.Tensor:
        """The gathers of sample `index` alone, (shots, time, receivers) float32.

        Raises:
            BrokenShardError: As when reading the whole sample.
        """
        return torch.from_numpy(self._read(index, [GATHERS])[GATHERS])

    def lots(self, places: NDArray[np.int64]) -> list[Lot]:
        """Some samples by the shard that they lie in.

        Args:
            places: Their places in the data set.
        """
        position = np.searchsorted(self.starts, places, side="right") - 1
        lots = []
        for number in np.unique(position).tolist():
            shard, mine = self.shards[number], places[position == number]
            size = int(self.starts[number + 1] - self.starts[number])
            rows = mine - self.starts[number]
            lots.append(Lot(self.store.path(shard), size, mine, rows, (self.store.shards[shard].sha256,)))
        return lots

    def velocity(self, index: int) -> torch.Tensor:
        """The map of sample `index` alone, (1, depth, width) float32 in m/s.

        Raises:
            BrokenShardError: As when reading the whole sample.
        """
        return torch.from_numpy(self._read(index, [VELOCITY])[VELOCITY])

    def _read(self, index: int, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Arrays of a sample, read at once: they lie side by side."""
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        shard, members = self.shards[place], [self.layout.members[name] for name in names]
        first, last = members[0].offset, members[-1].stop
        begin = (index - int(self.starts[place])) * self.layout.stride + first
        data, number = self.store.read(shard, begin, last - first), int(self.rows[index])
        try:
            return {m.name: self.layout.unpack(m.name, number, data, m.offset - first) for m in members}
        except MismatchError as error:
            self.store.mark_broken(shard, f"it {error}")
            raise BrokenShardError(self.store.broken[shard]) from None


class ShardSource(Recorded):
    """Training samples of shards. In the place of one whose shard is broken comes another of the same window.

    So every rank has the same number of samples, and no other sample is lost.

    Args:
        dataset: The samples.
        windows: Their order; places are those of the dataset.
    """

    dataset: ShardDataset

    def __init__(self, dataset: ShardDataset, windows: Windows) -> None:
        super().__init__(dataset)
        self.windows = windows
        self._window = (-1, -1)

    def sample(self, epoch: int, index: int) -> Sample:
        """A recorded sample: no shard is missing.

        Raises:
            UserError: If no shard at all can be read.
        """
        self._read_ahead(epoch, index)
        while True:
            try:
                return super().sample(epoch, index)
            except BrokenShardError as error:
                index = self._other(epoch, index, error)

    def velocity(self, epoch: int, index: int) -> torch.Tensor:
        """Its map alone, (1, depth, width) in m/s.

        Raises:
            UserError: If no shard at all can be read.
        """
        while True:
            try:
                return self.dataset.velocity(index)
            except BrokenShardError as error:
                index = self._other(epoch, index, error)

    def neighbours(self, epoch: int, index: int) -> NDArray[np.int64]:
        """The samples of the window: others might not be at hand."""
        return self.windows.neighbours(epoch, index)

    @cached_property
    def _shard_of(self) -> NDArray[np.int64]:
        """(samples,) number of the shard of each sample."""
        return np.repeat(np.array(self.dataset.shards), np.diff(self.dataset.starts))

    def _read_ahead(self, epoch: int, index: int) -> None:
        number = self.windows.number(epoch, index)
        if (epoch, number) != self._window:
            self._window = (epoch, number)
            coming = self.windows.shards(epoch, number) + self.windows.shards(epoch, number + 1)
            self.dataset.store.read_ahead([self.dataset.shards[shard] for shard in coming])

    def _other(self, epoch: int, index: int, error: BrokenShardError) -> int:
        """Another sample, of the window if one of its shards can be read, else of any."""
        store = self.dataset.store
        shard = int(self._shard_of[index])
        if shard not in store.reported:
            store.reported.add(shard)
            count = int((self._shard_of == shard).sum())
            log.warning("warning: %s Training goes on; others come in the place of its %d samples.", error, count)
        window = self.windows.neighbours(epoch, index)
        for places in (window, np.arange(len(self))):
            whole = places[~np.isin(self._shard_of[places], list(store.broken))]
            if len(whole):
                return int(random_numbers(self.windows.seed, epoch, index).choice(whole))
        raise UserError(f"no shard of {store.root} can be read; the last: {error}")
