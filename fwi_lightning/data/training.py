"""What a training batch is made of: samples from a source, changed by augmentations, completed by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from fwi_lightning.data.augment.base import Augmentation, Sample
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import Survey


class Source(Protocol):
    """Where training samples come from; each depends on epoch and index alone, so that a run can be resumed."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def sample(self, epoch: int, index: int) -> Sample:
        """A sample, recorded or to be simulated."""
        ...

    def velocity(self, epoch: int, index: int) -> Tensor:
        """Its map alone, (1, depth, width) in m/s."""
        ...

    def families(self, epoch: int) -> NDArray[np.int64]:
        """Family of each sample of an epoch, (samples,)."""
        ...

    def neighbours(self, epoch: int, index: int) -> NDArray[np.int64]:
        """The samples whose maps are at hand beside a sample, itself among them, ascending."""
        ...


class Recorded:
    """The samples of a data set, the same ones in each epoch.

    Args:
        dataset: A data set with labels.
    """

    def __init__(self, dataset: GathersDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, epoch: int, index: int) -> Sample:
        """A recorded sample: no shot is missing."""
        item = self.dataset[index]
        missing = torch.zeros(len(item["gathers"]), dtype=torch.bool)
        return Sample(missing=missing, spare=self.dataset.spare(index), **item)

    def velocity(self, epoch: int, index: int) -> Tensor:
        """Its map alone, (1, depth, width) in m/s."""
        return self.dataset.velocity(index)

    def families(self, epoch: int) -> NDArray[np.int64]:
        """Family of each sample, (samples,)."""
        return self.dataset.family_numbers

    def neighbours(self, epoch: int, index: int) -> NDArray[np.int64]:
        """All samples."""
        return np.arange(len(self))


class Look(Sequence[dict[str, Any]]):
    """Some samples of the first epoch as they are, for a look at the data before training.

    Args:
        source: Where they come from.
        places: Which they are.
    """

    def __init__(self, source: Source, places: NDArray[np.int64]) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        """A dict with the attributes of `Sample`."""
        return vars(self.source.sample(0, int(self.places[place])))


class TrainingSamples(Dataset[dict[str, Any]]):
    """Augmented samples by (epoch, index), the numbers that `EpochSampler` yields.

    An item is a dict with the attributes of `Sample` but `spare`, and seed: int, where the chance of its corruption
    comes from.
    `Completion.collate` makes a batch of items.

    Args:
        source: Where the samples come from.
        augmentations: What changes them, in this order.
        seed: Of the changes, 0 or more.
    """

    def __init__(self, source: Source, augmentations: Sequence[Augmentation], seed: int) -> None:
        self.source = source
        self.augmentations = list(augmentations)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of an index in an epoch.

        Raises:
            UserError: As `GathersDataset`.
        """
        epoch, index = key
        sample = self.source.sample(epoch, index)
        for step, augmentation in enumerate(self.augmentations):
            sample = augmentation.change(
                sample,
                # One for each augmentation: what one of them draws does not depend on the settings of another.
                random_numbers(self.seed, epoch, index, step + 1),
                lambda generator, same: self._partner(epoch, index, generator, same),
            )
        item = {name: value for name, value in vars(sample).items() if value is not None and name != "spare"}
        return item | {"seed": int(random_numbers(self.seed, epoch, index, 0).integers(2**62))}

    def _partner(self, epoch: int, index: int, generator: np.random.Generator, same: bool) -> Tensor:
        """The map of another sample at hand, of the same family or of another; of any where there is none."""
        families, places = self.source.families(epoch), self.source.neighbours(epoch, index)
        wanted = places[((families[places] == families[index]) == same) & (places != index)]
        return self.source.velocity(epoch, int(generator.choice(wanted if len(wanted) else places)))


class Completion:
    """The last step of a batch: missing shots are simulated, then gathers are corrupted.

    Runs where the gathers are simulated: in a worker, or on the training device.

    Args:
        survey: The survey of the gathers.
        augmentations: Those of `TrainingSamples`.
    """

    def __init__(self, survey: Survey, augmentations: Sequence[Augmentation]) -> None:
        self.survey = survey
        self.augmentations = list(augmentations)

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Items of `TrainingSamples` as a complete batch."""
        return self(default_collate(list(items)))

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch without missing shots, with what `GathersDataset` has.

        Args:
            batch: Items of `TrainingSamples`, stacked, on any device that `simulate` runs on. Its gathers
                and its illumination, if any, are completed in place.

        Raises:
            UserError: As `simulate`.
        """
        gathers = batch["gathers"]
        simulate_missing(gathers, batch["missing"], batch["velocity"], self.survey, batch.get("illumination"))
        for sample, seed in zip(gathers, batch["seed"].tolist(), strict=True):
            for step, augmentation in enumerate(self.augmentations):
                augmentation.corrupt(sample, seed + step)
        return {name: value for name, value in batch.items() if name not in ("missing", "seed")}


@torch.no_grad()
def simulate_missing(
    gathers: Tensor, missing: Tensor, velocity: Tensor, survey: Survey, illumination: Tensor | None = None
) -> None:
    """Fill in the shots that are missing: the one place where training gathers are simulated.

    Args:
        gathers: (batch, shots, time, receivers) float32, changed in place; thinned ones get thinned shots.
        missing: (batch, shots) bool.
        velocity: (batch, 1, depth, width) in m/s.
        survey: The survey.
        illumination: (batch, 1, depth, width), changed in place where every shot is missing. Default: not wanted.

    Raises:
        UserError: As `simulate`.
    """
    step = survey.thinning_of(gathers.shape[2])
    for pattern in missing.unique(dim=0):
        shots = pattern.nonzero()[:, 0].tolist()
        rows = (missing == pattern).all(dim=1).nonzero()[:, 0]
        if illumination is not None and pattern.all():
            recorded, light = illuminate(velocity[rows, 0], survey)
            gathers[rows] = recorded[:, :, ::step].to(gathers.dtype)
            illumination[rows, 0] = light.to(illumination.dtype)
        elif shots:
            part = replace(survey, shot_columns=tuple(survey.shot_columns[shot] for shot in shots))
            gathers[rows[:, None], shots] = simulate(velocity[rows, 0], part)[:, :, ::step].to(gathers.dtype)


def random_numbers(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that depend on a seed and a key alone: other keys, and keys of other lengths, give others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
