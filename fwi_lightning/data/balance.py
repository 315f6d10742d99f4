"""Families in stated shares: large ones give a part in each epoch, small ones take from a second source.

Worker processes import this module, so it imports no Lightning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data.augment.base import Sample
from fwi_lightning.data.fresh_maps import SEEDS, drawn_map, drawn_sample
from fwi_lightning.data.training import Recorded, random_numbers
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.survey import Survey

FIRST, SECOND, FRESH = 0, 1, 2
"""Where a sample of an epoch comes from."""

SOURCES = ("recorded", "from the supplement", "fresh")


@dataclass(frozen=True)
class Plan:
    """The samples of an epoch.

    Attributes:
        families: (samples,) int64, number of the family.
        sources: (samples,) int64, `FIRST`, `SECOND` or `FRESH`.
        places: (samples,) int64, place in the data set of the source; of fresh samples the place in the epoch.
    """

    families: NDArray[np.int64]
    sources: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Balance:
    """What an epoch is to be made of.

    Attributes:
        shares: Family to relative share, "equal" for the same of each, or None for the samples as they are.
        supplement: Where families that are too small take more from: "fresh" for drawn and simulated samples, or a
            folder or file as `find_parts` reads it. None repeats their samples.
        samples: Training samples in an epoch. None: as many as there are.

    Raises:
        UserError: If a setting is of another kind.
    """

    shares: Mapping[str, float] | str | None = None
    supplement: str | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        if not (self.shares in (None, "equal") or isinstance(self.shares, Mapping)):
            raise UserError(f"balance.shares must be equal, names with shares, or null, got {self.shares!r}.")
        if not (self.supplement is None or isinstance(self.supplement, str)):
            raise UserError(f"balance.supplement must be fresh, a folder, or null, got {self.supplement!r}.")
        whole = isinstance(self.samples, int) and not isinstance(self.samples, bool)
        if self.samples is not None and not (whole and self.samples > 0):
            raise UserError(f"balance.samples must be a whole number of at least 1, or null, got {self.samples!r}.")
        if self.shares is None and (self.supplement is not None or self.samples is not None):
            raise UserError("balance.supplement and balance.samples need shares: add balance.shares=equal, or shares.")

    @property
    def folder(self) -> str | None:
        """The second source on disk, if it is one."""
        return None if self.supplement in (None, "fresh") else self.supplement

    def families(self, names: list[str]) -> dict[str, float]:
        """The share of each family, of those that there are."""
        return dict(self.shares) if isinstance(self.shares, Mapping) else dict.fromkeys(names, 1.0)


class Balanced:
    """A source of training samples whose families have stated shares in every epoch.

    Of a family that is larger than its share each epoch takes another part, all of it before any sample comes again.
    One that is smaller is used whole in every epoch, and supplemented; without a supplement its samples repeat, all
    equally often.

    Args:
        recorded: The training samples; their data set's families number those of all others.
        shares: Family to relative share; a family without one is left out.
        samples: Samples in an epoch.
        seed: Of what is taken when, below 2**64.
        survey: The survey, of fresh samples.
        supplement: The second source: other recorded samples with the same numbers of families, "fresh" for drawn and
            simulated ones, or None.

    Raises:
        UserError: If a share is no number of at least 0, a family has neither samples nor a supplement, or the
            survey's grid is too small for a map.
    """

    def __init__(
        self,
        recorded: Recorded,
        shares: Mapping[str, float],
        samples: int,
        seed: int,
        survey: Survey,
        supplement: Recorded | str | None = None,
    ) -> None:
        self.recorded, self.seed, self.survey, self.samples = recorded, seed, survey, samples
        self.second = supplement if isinstance(supplement, Recorded) else None
        self.draws = supplement == "fresh"
        self.names = recorded.dataset.families
        self.counts = _counts(shares, self.names, samples)
        self.members = [_members(recorded, family) for family in range(len(self.names))]
        self.others = [_members(self.second, family) for family in range(len(self.names))]
        self.first_number = sum(part.samples for part in recorded.dataset.parts)
        self.next_number = self.first_number
        if self.second is not None:
            self.next_number += sum(part.samples for part in self.second.dataset.parts)
        self._planned: tuple[int, Plan] | None = None
        self._check()

    def __len__(self) -> int:
        return self.samples

    def sample(self, epoch: int, index: int) -> Sample:
        """A sample, recorded or to be simulated."""
        recorded, place, family = self._origin(epoch, index)
        if recorded is None:
            return drawn_sample(
                self.survey,
                (self.names[family], family),
                (self.seed, epoch, index),
                self.next_number + epoch * self.samples + index,
                self.recorded.dataset,
            )
        sample = recorded.sample(epoch, place)
        # Numbers of the second source follow those of the first.
        return sample if recorded is self.recorded else replace(sample, index=self.first_number + sample.index)

    def velocity(self, epoch: int, index: int) -> Tensor:
        """Its map alone, (1, depth, width) in m/s."""
        recorded, place, family = self._origin(epoch, index)
        if recorded is None:
            return drawn_map(self.survey, self.names[family], (self.seed, epoch, index))
        return recorded.velocity(epoch, place)

    def _origin(self, epoch: int, index: int) -> tuple[Recorded | None, int, int]:
        """The recorded samples that a sample is of, None if it is fresh; its place there; its family."""
        plan = self.plan(epoch)
        recorded = {FIRST: self.recorded, SECOND: self.second, FRESH: None}[int(plan.sources[index])]
        return recorded, int(plan.places[index]), int(plan.families[index])

    def families(self, epoch: int) -> NDArray[np.int64]:
        """Family of each sample of an epoch, (samples,)."""
        return self.plan(epoch).families

    def neighbours(self, epoch: int, index: int) -> NDArray[np.int64]:
        """All samples of the epoch."""
        return np.arange(self.samples)

    def plan(self, epoch: int) -> Plan:
        """What an epoch is made of: family after family, since the sampler shuffles."""
        if self._planned is None or self._planned[0] != epoch:
            parts = [self._plan_of(family, epoch) for family in range(len(self.names))]
            sources, places = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            families = np.repeat(np.arange(len(self.names)), self.counts)
            places = np.where(sources == FRESH, np.arange(self.samples), places)
            self._planned = epoch, Plan(families, sources, places)
        return self._planned[1]

    def table(self, epoch: int) -> dict[str, dict[str, int]]:
        """Of each family how many samples an epoch takes from where, by `SOURCES`; nothing of what it does not take."""
        plan = self.plan(epoch)
        table = {}
        for family, name in enumerate(self.names):
            counts = np.bincount(plan.sources[plan.families == family], minlength=len(SOURCES)).tolist()
            table[name] = {word: count for word, count in zip(SOURCES, counts, strict=True) if count}
        return table

    def _plan_of(self, family: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sources and places of the samples of a family."""
        count, members, others = int(self.counts[family]), self.members[family], self.others[family]
        if len(members) >= count or not (len(others) or self.draws):
            places = members[_walk(self.seed, (FIRST, family), len(members), epoch * count, count)]
            return np.full(count, FIRST), places
        lacking = count - len(members)
        if self.draws:
            more = np.zeros(lacking, np.int64)
        else:
            more = others[_walk(self.seed, (SECOND, family), len(others), epoch * lacking, lacking)]
        sources = np.repeat([FIRST, FRESH if self.draws else SECOND], [len(members), lacking])
        return sources, np.concatenate([members, more])

    def _check(self) -> None:
        for family, name in enumerate(self.names):
            needed = self.counts[family] > len(self.members[family])
            if self.draws and needed and name not in FAMILIES:
                known = ", ".join(FAMILIES)
                raise UserError(f"balance.supplement=fresh cannot draw {name}: the known families are {known}.")
            if self.counts[family] and not (self.draws or len(self.members[family]) or len(self.others[family])):
                raise UserError(f"balance.shares has {name}, of which there are no samples: leave it out or add some.")
        if self.draws:
            if self.seed >= SEEDS:
                raise UserError(f"seed must be below 2**64, because fresh maps take the seeds above, got {self.seed}.")
            draw(FAMILIES[0], 1, 0, shape=self.survey.grid)  # better known now than in a worker


def _members(recorded: Recorded | None, family: int) -> NDArray[np.int64]:
    """Places of the samples of a family in a data set."""
    if recorded is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(recorded.dataset.family_numbers == family)


def _counts(shares: Mapping[str, float], names: list[str], samples: int) -> NDArray[np.int64]:
    """Samples of each family, by the largest remainders: within one of the exact share."""
    for name, share in shares.items():
        if name not in names:
            raise UserError(f"balance.shares has {name!r}, which is no family here: there are {', '.join(names)}.")
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share < float("inf"):
            raise UserError(f"balance.shares.{name} must be a number of at least 0, got {share!r}.")
    wanted = np.array([float(shares.get(name, 0)) for name in names])
    if not wanted.sum():
        raise UserError("balance.shares leaves every family out: give at least one of them a share above 0.")
    exact = samples * wanted / wanted.sum()
    counts = np.floor(exact).astype(np.int64)
    more = np.argsort(counts - exact, kind="stable")[: samples - counts.sum()]
    counts[more] += 1
    return counts


def _walk(seed: int, key: tuple[int, int], length: int, first: int, count: int) -> NDArray[np.int64]:
    """Places `first` to `first + count` of an endless walk through `length` things, each round in another order."""
    if not count:
        return np.zeros(0, np.int64)
    rounds, places = np.divmod(np.arange(first, first + count), length)
    found = np.empty(count, np.int64)
    for number in np.unique(rounds).tolist():
        found[rounds == number] = _order(seed, *key, number, length)[places[rounds == number]]
    return found


@lru_cache(maxsize=64)
def _order(seed: int, source: int, family: int, number: int, length: int) -> NDArray[np.int64]:
    """The order of the samples of a family in one round through them."""
    return random_numbers(seed, 2, source, family, number).permutation(length)
