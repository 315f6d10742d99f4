"""The samples of `FreshDataModule`. Worker processes import this module, so it imports no Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data.augment.base import Sample
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.training import Recorded, random_numbers
from fwi_lightning.geology import draw
from fwi_lightning.survey import Survey

SEEDS = 2**64
"""Seeds of runs and of surveys lie below, so that they cannot be the seed of a fresh map."""

_SHARES, _ORDER = 0, 1  # first number of the keys of what is drawn besides maps


class FreshMaps:
    """The source of fresh samples, and of recorded ones among them.

    Args:
        recorded: The recorded training samples; their data set's families number those of the fresh ones.
        seed: Of the fresh maps and of the order of the recorded samples, below 2**64.
        survey: The survey; the maps have its grid.
        shares: Family to relative share of the fresh maps.
        samples: Samples in an epoch. The first ones are fresh: the sampler shuffles them.
        fresh_share: Share of the samples that is fresh.

    Raises:
        UserError: If the survey's grid is too small for a map.
    """

    def __init__(
        self,
        recorded: Recorded,
        seed: int,
        survey: Survey,
        shares: Mapping[str, float],
        samples: int,
        fresh_share: float,
    ) -> None:
        self.recorded, self.seed, self.survey = recorded, seed, survey
        self.samples = samples
        self.fresh = round(fresh_share * samples)
        self.names = list(shares)
        self.numbers = np.array([recorded.dataset.families.index(name) for name in self.names], np.int64)
        total = np.cumsum(list(shares.values()))
        self.bounds = total[:-1] / total[-1]
        self.first_number = sum(part.samples for part in recorded.dataset.parts)
        draw(self.names[0], 1, 0, shape=survey.grid)  # a grid that is too small is better known now than in a worker

    def __len__(self) -> int:
        return self.samples

    def sample(self, epoch: int, index: int) -> Sample:
        """A sample; of a fresh one every shot is missing, and its number follows those of all recorded ones."""
        if index >= self.fresh:
            return self.recorded.sample(epoch, int(self._places(epoch, np.array(index))))
        kind = int(self._kinds(epoch, np.array(index)))
        return drawn_sample(
            self.survey,
            (self.names[kind], int(self.numbers[kind])),
            (self.seed, epoch, index),
            self.first_number + epoch * self.samples + index,
            self.recorded.dataset,
        )

    def velocity(self, epoch: int, index: int) -> Tensor:
        """The map of a sample alone, (1, depth, width) in m/s."""
        if index >= self.fresh:
            return self.recorded.velocity(epoch, int(self._places(epoch, np.array(index))))
        name = self.names[int(self._kinds(epoch, np.array(index)))]
        return drawn_map(self.survey, name, (self.seed, epoch, index))

    def families(self, epoch: int) -> NDArray[np.int64]:
        """Family of each sample of an epoch, (samples,)."""
        indices = np.arange(self.samples)
        fresh = self.numbers[self._kinds(epoch, indices[: self.fresh])]
        return np.concatenate([fresh, self.recorded.families(epoch)[self._places(epoch, indices[self.fresh :])]])

    def neighbours(self, epoch: int, index: int) -> NDArray[np.int64]:
        """All samples of the epoch."""
        return np.arange(self.samples)

    def _kinds(self, epoch: int, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Place in `names` of the family of fresh samples.

        Systematic sampling: evenly spaced marks from a random start in each epoch fall on families laid end to end.
        Shares are then met to within one sample in every epoch, and exactly in the mean of many.
        """
        start = random_numbers(self.seed, _SHARES, epoch).random()
        return np.searchsorted(self.bounds, (indices + start) / self.fresh, side="right")

    def _places(self, epoch: int, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Place in the recorded data set of the samples that are not fresh: round after round through all of it."""
        count = len(self.recorded)
        rounds, places = np.divmod(epoch * (self.samples - self.fresh) + indices - self.fresh, count)
        found = np.empty(indices.shape, np.int64)
        for number in np.unique(rounds).tolist():
            found[rounds == number] = _order(self.seed, number, count)[places[rounds == number]]
        return found


def drawn_map(survey: Survey, family: str, key: tuple[int, int, int]) -> Tensor:
    """A fresh map, (1, depth, width) float32 in m/s.

    Args:
        survey: The survey, whose grid it has.
        family: Its family.
        key: Seed of the run, epoch, and index in the epoch.
    """
    seed, epoch, index = key
    return torch.from_numpy(draw(family, 1, fresh_seed(seed, epoch), index, survey.grid)[0])


def drawn_sample(
    survey: Survey, family: tuple[str, int], key: tuple[int, int, int], number: int, recorded: GathersDataset
) -> Sample:
    """A fresh sample, of which every shot is still missing.

    Args:
        survey: The survey.
        family: Name and number of the family.
        key: As `drawn_map`.
        number: Its number, beyond those of all recorded samples.
        recorded: Samples that it is to be batched with: thinned as they are, with illumination where they have it.
    """
    return Sample(
        gathers=torch.zeros(recorded.parts[0].shape),
        missing=torch.ones(survey.shots, dtype=torch.bool),
        velocity=drawn_map(survey, family[0], key),
        family=family[1],
        index=number,
        illumination=torch.zeros(1, *survey.grid) if recorded.illumination else None,
    )


def fresh_seed(seed: int, epoch: int) -> int:
    """The seed of the fresh maps of an epoch.

    Bit 127 is set, epoch and run's seed take 63 and 64 bits below it. Two runs, two epochs, or a run and a survey
    (whose seed is below 2**64) therefore never have the same seed; and `draw` hands seed, family and index to
    numpy's SeedSequence as words of their own, so that no index can make up for another seed.

    Args:
        seed: Of the run, below 2**64.
        epoch: From 0, below 2**63.
    """
    return 1 << 127 | epoch << 64 | seed


@lru_cache(maxsize=4)
def _order(seed: int, number: int, count: int) -> NDArray[np.int64]:
    """The order of the recorded samples in one round through them."""
    return random_numbers(seed, _ORDER, number).permutation(count)
