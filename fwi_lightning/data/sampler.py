"""The order in which samples are read: shuffled in each epoch, the same on every run and after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

# Both are DistributedSamplers only so that Lightning leaves them in place on several devices, whatever
# Trainer(use_distributed_sampler=...) says: it would wrap any other kind and deal out its samples a second
# time.


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Training order that depends on (seed, epoch) alone and can begin anywhere inside an epoch.

    It yields (epoch, index): what an augmentation draws, or which map is fresh, depends on both, and a worker process
    learns the epoch nowhere else.

    Rank r of n takes every n-th sample of the shuffled order, so the first `consumed` samples of the order
    are those that all ranks together have read, and a resume may even change the number of ranks. All ranks
    get the same number of samples (the gradients of a step need all of them): the order is filled up from its
    own beginning.

    Args:
        length: Number of samples in the dataset.
        seed: Whole number, 0 or more.
        num_replicas: Number of ranks. Default 1.
        rank: This rank. Default 0.
    """

    def __init__(self, length: int, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(length), num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self.length = length
        self.consumed = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one than before starts at its beginning.

        Lightning calls this at the start of every epoch, also of one that is resumed in the middle: the same
        epoch again therefore keeps the position.
        """
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def resume(self, epoch: int, consumed: int) -> None:
        """Start inside an epoch, after the samples that all ranks together have consumed in it."""
        self.epoch, self.consumed = epoch, consumed

    def order(self) -> NDArray[np.int64]:
        """(samples,) all samples of the epoch in the order of all ranks together."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.length)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The epoch and the number of each of this rank's samples that are still to come in it."""
        order = self.order()
        rest = order[self.consumed :]
        missing = -len(rest) % self.num_replicas
        filled = np.concatenate([rest, np.resize(order, missing)])
        return zip(repeat(self.epoch), filled[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, wherever it starts: Lightning counts from the beginning."""
        return -(-self.length // self.num_replicas)


class ShareSampler(DistributedSampler[int]):
    """Evaluation order: each sample once, in order, on exactly one rank.

    Nothing is filled up, so a sample never counts twice in a metric. Ranks may get unequal numbers of
    samples: an evaluation step exchanges nothing between ranks, and metrics with summed states meet only at
    the epoch's end.

    Args:
        length: Number of samples in the dataset.
        num_replicas: Number of ranks. Default 1.
        rank: This rank. Default 0.
    """

    def __init__(self, length: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(length), num_replicas, rank)  # type: ignore[arg-type]
        self.share = range(rank, length, num_replicas)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)
