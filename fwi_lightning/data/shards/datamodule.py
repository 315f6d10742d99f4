"""The data module that trains from shards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.datamodule import GathersDataModule
from fwi_lightning.data.sampler import EpochSampler
from fwi_lightning.data.shards.dataset import ShardDataset, ShardSource
from fwi_lightning.data.shards.order import Windows, WindowSampler
from fwi_lightning.data.shards.store import ShardStore, is_url, read_index
from fwi_lightning.data.training import Look, Source
from fwi_lightning.errors import UserError


class ShardsDataModule(GathersDataModule):
    """Trains from shards in a folder or behind a URL; batches, folds and resume are those of `GathersDataModule`.

    Each epoch has every training sample once, in an order that depends on seed and epoch alone; see `Windows`. All
    ranks share one order, so that they have the same number of steps however the shards are filled. A shard that
    cannot be read is tried again and then left out of training; see `ShardSource`. In validation it is an error: a
    score without some samples could not be compared with others.

    Args:
        root: Folder or http(s) URL of the shards.
        shuffle_mb: Shards whose samples are shuffled together, in MB (10^6 bytes): a window. It takes up no memory;
            of a URL, two windows lie on the disk at a time. Default 2048.
        cache: Folder for shards from a URL. Default "cache/shards".
        cache_gb: What may lie there on each machine, in GB. Default 100.
        attempts: How often a shard is tried before it counts as broken. Default 4.
        wait: Seconds before the second attempt; each further one waits twice as long. Default 1.
        **settings: As `GathersDataModule`, without `split` and `illumination`: both were decided when the shards were
            written; nor `training_samples`, `reading` and `balance`. `folds` must be those of the shards.

    Raises:
        UserError: If a setting is out of range.
    """

    train_dataset: ShardDataset

    def __init__(
        self,
        root: str,
        shuffle_mb: float = 2048,
        cache: str = "cache/shards",
        cache_gb: float = 100,
        attempts: int = 4,
        wait: float = 1.0,
        **settings: Any,
    ) -> None:
        for name in ("training_samples", "reading", "half_folder", "balance"):
            if name in settings:
                raise UserError(f"data.{name} is for files as they lie, not for shards: leave it out.")
        super().__init__(root=root, **settings)
        self.hparams.update(shuffle_mb=shuffle_mb, cache=cache, cache_gb=cache_gb, attempts=attempts, wait=wait)
        for name, least in (("shuffle_mb", 0), ("cache_gb", 0), ("attempts", 1), ("wait", 0)):
            if self.hparams[name] < least:
                raise UserError(f"{name} must be at least {least}, got {self.hparams[name]}.")

    def prepare_data(self) -> None:
        """Nothing: the shards are written by a command of their own."""

    def setup(self, stage: str | None = None) -> None:
        """Read the index and look for shards that are missing; a second call does nothing.

        Args:
            stage: Ignored.

        Raises:
            UserError: If the index cannot be read or does not fit the survey or the folds, or a shard to validate on
                is missing.
        """
        if self.parts:
            return
        own = self.hparams
        where, index = read_index(str(own["root"]), own["attempts"], own["wait"])
        index.check_survey(self.survey, where)
        if index.folds != self.folds:
            raise UserError(
                f"{where} holds shards of folds={index.folds}, this run has folds={self.folds}: "
                f"set folds={index.folds}, or write shards with other folds."
            )
        if self.needs_illumination and not index.layout.illumination:
            raise UserError(
                f"{where} holds shards without illumination, which this loss needs: write them with "
                "illumination=true, or train with loss=l1."
            )
        store = ShardStore(where, index.shards, own["cache"], own["cache_gb"], own["attempts"], own["wait"])
        held = [number for number, shard in enumerate(index.shards) if shard.fold == self.fold]
        kept = [number for number, shard in enumerate(index.shards) if shard.fold != self.fold]
        largest = max(shard.size for shard in index.shards)
        width = max(1, int(own["shuffle_mb"] * 1e6 // largest))
        if is_url(where) and 2 * width * largest > own["cache_gb"] * 1e9:
            raise UserError(
                f"cache_gb={own['cache_gb']} does not hold two windows of {width * largest / 1e6:.3g} MB: raise "
                "data.cache_gb or lower data.shuffle_mb."
            )
        for sentence in store.look(held):
            raise UserError(f"{sentence} Fold {self.fold} validates on it.")
        store.look(kept)
        tested = self._test_parts()
        self._name_families(index.parts + tested)
        self.train_dataset = ShardDataset(index, store, kept, self.families, self.needs_illumination)
        self.val_dataset = ShardDataset(index, store, held, self.families, self.needs_illumination)
        self.test_dataset = self._test_dataset(tested)
        self.windows = Windows([len(index.shards[number].rows) for number in kept], width, self.seed)
        self.index, self.blocks, self.parts = index, index.blocks, index.parts

    def _source(self) -> Source:
        return ShardSource(self.train_dataset, self.windows)

    @property
    def look(self) -> Look:
        """Training samples of the first window: every shard is a fair mix, and others may not be fetched yet."""
        return Look(self._source(), self._at_hand())

    def _at_hand(self) -> NDArray[np.int64]:
        return self.windows.places(self.windows.shards(0, 0))

    def _counted(self) -> NDArray[np.int64]:
        """All training samples; of a URL those of the first window, which is fetched first in any case."""
        return self._at_hand() if self.train_dataset.store.remote else super()._counted()

    def _sampler(self, length: int, ranks: int, rank: int) -> EpochSampler:
        return WindowSampler(self.windows, ranks, rank)

    def mean_velocity(self) -> NDArray[np.float32]:
        """Mean of the training labels, (1, depth, width) float32 in m/s, from the index."""
        counts = np.zeros(self.folds)
        for shard in self.index.shards:
            counts[shard.fold] += len(shard.rows)
        counts[self.fold] = 0
        return np.average(self.index.mean_velocity, axis=0, weights=counts)[None].astype(np.float32)
