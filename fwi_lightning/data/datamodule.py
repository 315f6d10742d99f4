"""The LightningDataModule: files, folds and loaders of one data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.config import build
from fwi_lightning.data.augment.base import Augmentation
from fwi_lightning.data.augment.monai import Monai
from fwi_lightning.data.balance import Balance, Balanced
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.files import Part, find_parts
from fwi_lightning.data.folds import Block, assign_folds, check_fold, rows_of_fold, split_table, write_split
from fwi_lightning.data.illumination import illumination_file, write_illuminations
from fwi_lightning.data.loading import LoadingModule
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.reading import READINGS, open_parts, write_halves
from fwi_lightning.data.starts import StartsDataset, StartsOf
from fwi_lightning.data.statistics import mean_squares, spread
from fwi_lightning.data.thinned import check_alike
from fwi_lightning.data.training import Completion, Look, Recorded, Source, TrainingSamples
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI, Survey

if TYPE_CHECKING:  # as in data/statistics.py
    from fwi_lightning.models import InputTransform


class GathersDataModule(LoadingModule):
    """Gathers and velocity maps from files, divided into folds; one fold is held out for validation and test.

    A batch is a dict of gathers (batch, shots, time, receivers) float32, velocity (batch, 1, depth, width)
    float32 in m/s, family (batch,) and index (batch,) int64; see `GathersDataset`. A run resumed from any
    checkpoint goes on with the sample that an uninterrupted one would have read; see `ResumableLoader`.

    Attributes:
        families: Names that `family` counts in: known families in the order of `FAMILIES`, then others by
            name.
        parts: The files.
        blocks: The folds.
        needs_illumination: Whether batches of training and validation are to have the illumination, (batch, 1, depth,
            width) float32; computed on first use. To be set before `prepare_data`. At first False.
        starts: Where the maps that a refiner is to correct lie, see `StartsDataset`. To be set before `setup`. At first
            None: none are wanted.
        train_dataset: The samples of the files to train on, as they are.
        val_dataset: Those held out.
        test_dataset: Those of `test_root`, or those held out.

    Args:
        root: Folder or file as `find_parts` reads it.
        survey: The survey that recorded the gathers, or its attributes as a dict. Default: OpenFWI's.
        folds: Number of folds. Default 5.
        fold: The fold to hold out, from 0. Default 0.
        batch_size: Samples per training step on one device. Default 16.
        eval_batch_size: Samples at a time in validation and test. Default: `batch_size`.
        num_workers: Processes that read ahead, for training and as many for validation; 0 reads in the main
            one, which suffices for thousands of samples a second from a local disk. Default 0.
        seed: Of folds and order. Default 0.
        split: List of files to use, one pair a line. Default: all files.
        test_root: Labelled data for the test instead of the held-out fold. Default: none.
        drop_last: Whether to leave out an incomplete last batch in training. Default False.
        illumination: Folder to keep illumination in, for losses that need it. Default: a hidden folder beside each
            velocity file, where that can be written, else cache/illumination.
        augment: Name to configuration of what changes training samples, in this order; each builds a
            `fwi_lightning.data.augment.Augmentation`. Default: nothing.
        training_samples: How many of the training samples to use, evenly spread over them; None for all. Default None.
        statistics_samples: Training samples that the scale of a model's input is taken from, evenly spread over them;
            None for all. Default None.
        reading: How samples are read, "map", "memory" or "half"; see `open_parts`. Default "map".
        half_folder: Folder of the copies of "half". Default "cache/half".
        balance: How many training samples of which family an epoch has; see `Balance`. Default: as many as there are.
        transforms: "monai" sends training samples, after `augment`, through the pipeline of `monai`. Default "none".
        monai: The steps of that pipeline by name; see `fwi_lightning.data.augment.Monai`. Default: none.
        simulate_on: Where gathers of changed maps are simulated: "workers" (the processes that read; the main one if
            num_workers is 0) or "device" (the training device, the whole batch at once; for a GPU). Default "workers".

    Raises:
        UserError: If a setting is out of range; the data itself is looked at in `setup`.
    """

    needs_illumination = False
    starts: StartsOf | None = None

    def __init__(
        self,
        root: str,
        survey: Survey | Mapping[str, Any] | None = None,
        folds: int = 5,
        fold: int = 0,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        split: str | None = None,
        test_root: str | None = None,
        drop_last: bool = False,
        illumination: str | None = None,
        augment: Mapping[str, Any] | None = None,
        training_samples: int | None = None,
        statistics_samples: int | None = None,
        reading: str = "map",
        half_folder: str = "cache/half",
        balance: Mapping[str, Any] | None = None,
        transforms: str = "none",
        monai: Mapping[str, Any] | None = None,
        simulate_on: str = "workers",
    ) -> None:
        super().__init__()
        self.survey = survey if isinstance(survey, Survey) else Survey(**survey) if survey else OPENFWI
        self.save_hyperparameters(ignore=["survey"], logger=False)
        self.hparams["survey"] = self.survey.to_dict()
        self.root = Path(root)
        self.split = split
        self.test_root = test_root
        self.folds, self.fold, self.seed = folds, fold, seed
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.illumination = illumination
        self.training_samples, self.statistics_samples = training_samples, statistics_samples
        if reading not in READINGS:
            raise UserError(f"reading must be {', '.join(READINGS[:-1])} or {READINGS[-1]}, got {reading!r}.")
        self.reading, self.half_folder = reading, half_folder
        self.balance = Balance(**dict(balance or {}))
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("num_workers", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        for name in ("training_samples", "statistics_samples"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"{name} must be a whole number of at least 1, or null for all, got {value!r}.")
        check_fold(fold, folds)
        for name, value, known in (
            ("simulate_on", simulate_on, ("workers", "device")),
            ("transforms", transforms, ("none", "monai")),
        ):
            if value not in known:
                raise UserError(f"{name} must be {' or '.join(known)}, got {value!r}.")
        self.simulate_on = simulate_on
        self.augmentations: list[Augmentation] = [
            build(entry, survey=self.survey) for entry in (augment or {}).values()
        ]
        if transforms == "monai":
            self.augmentations.append(Monai(self.survey, monai or {}))
        self.families: list[str] = []
        self.parts: list[Part] = []
        self.blocks: list[Block] = []
        self.supplement: Recorded | str | None = None
        self._maps = Maps()

    def prepare_data(self) -> None:
        """Compute the illumination where it is needed, and copy what is to be copied, or what is missing of it.

        Lightning calls this in one process of each machine.

        Raises:
            UserError: As `find_parts`, `write_illuminations` and `write_halves`.
        """
        if not self.needs_illumination and self.reading != "half":
            return
        parts = self._find(self.root, self.split)
        parts += self._find(self.balance.folder) if self.balance.folder else []
        if self.needs_illumination:
            write_illuminations(parts, self.survey, self.illumination)
        if self.reading == "half":
            parts += self._find(self.test_root) if self.test_root else []
            write_halves(parts, self.half_folder)

    def setup(self, stage: str | None = None) -> None:
        """Scan the files and divide them into folds; a second call does nothing.

        Args:
            stage: Ignored: the scan reads headers only and serves every stage.

        Raises:
            UserError: As `find_parts`, `assign_folds` and `rows_of_fold`.
        """
        if self.parts:
            return
        parts = self._find(self.root, self.split)
        tested = self._test_parts()
        more = self._find(self.balance.folder) if self.balance.folder else []
        check_alike([(part.gathers, part.shape) for part in parts + more])
        self._name_families(parts + tested + more)
        kept, held = self._divide(parts)
        kept = spread(kept, self.training_samples)
        self._maps = open_parts([*parts, *more, *tested], self.reading, self.half_folder)
        self.train_dataset = self._dataset(parts, kept)
        self.val_dataset = self._dataset(parts, held)
        self.supplement = self._supplement(parts, more)
        self.test_dataset = self._test_dataset(tested)
        self.parts = parts

    def _divide(self, parts: list[Part]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples to train on and those held out, by their numbers; notes the blocks."""
        self.blocks = assign_folds(parts, self.folds, self.seed)
        return rows_of_fold(parts, self.blocks, self.fold)

    def _find(self, root: str | Path, split: str | None = None) -> list[Part]:
        """The files under a root, or those of a split file; thinned ones too."""
        return find_parts(root, split, self.survey, thinned=True)

    def _dataset(self, parts: list[Part], rows: NDArray[np.int64] | None = None) -> GathersDataset:
        """Some rows of some parts, with the illumination where it is needed."""
        lit = [illumination_file(part, self.survey, self.illumination) for part in parts if self.needs_illumination]
        if self.starts is not None:
            return StartsDataset(self.starts, parts, rows, self.families, lit, self._maps)
        return GathersDataset(parts, rows, self.families, lit, self._maps)

    def _supplement(self, parts: list[Part], more: list[Part]) -> Recorded | str | None:
        """The second source of a balanced epoch.

        Raises:
            UserError: If it holds a file of the first one, whose samples may be held out.
        """
        files = {part.gathers.resolve() for part in parts}
        both = [part.gathers for part in more if part.gathers.resolve() in files]
        if both:
            raise UserError(f"balance.supplement holds {both[0]}, which data.root has too: give another folder.")
        return Recorded(self._dataset(more)) if more else self.balance.supplement

    def _test_parts(self) -> list[Part]:
        """The files to test on, if they are none of those divided into folds."""
        return self._find(self.test_root) if self.test_root else []

    def _name_families(self, parts: Sequence[Part]) -> None:
        """Give the families their numbers."""
        found = {part.family for part in parts} | self._drawn_families()
        known = [family for family in FAMILIES if family in found]
        self.families = known + sorted(found.difference(known))

    def _test_dataset(self, parts: Sequence[Part]) -> GathersDataset:
        return GathersDataset(parts, None, self.families, maps=self._maps) if parts else self.val_dataset

    def _drawn_families(self) -> set[str]:
        """Families that training samples may have besides those of the files."""
        shares = self.balance.shares
        return (
            set(shares) & set(FAMILIES) if isinstance(shares, Mapping) and self.balance.supplement == "fresh" else set()
        )

    def _source(self) -> Source:
        """Where training samples come from."""
        recorded = Recorded(self.train_dataset)
        if self.balance.shares is None:
            return recorded
        shares = self.balance.families(self.families)
        samples = self.balance.samples or len(recorded)
        return Balanced(recorded, shares, samples, self.seed, self.survey, self.supplement)

    def drawn(self, epoch: int) -> dict[str, dict[str, int]]:
        """Of each family how many training samples of an epoch come from where; empty unless the epoch is balanced."""
        source = self._source()
        return source.table(epoch) if isinstance(source, Balanced) else {}

    @property
    def samples_per_epoch(self) -> int:
        """Training samples in an epoch."""
        return len(self._source())

    @property
    def look(self) -> Look:
        """Recorded training samples that stand for all, to be looked at before training."""
        return Look(Recorded(self.train_dataset), np.arange(len(self.train_dataset)))

    def mean_squares(self, transform: InputTransform) -> NDArray[np.float64]:
        """What the scale of a model's input is made of, by one pass over the training samples as they are recorded.

        Args:
            transform: The transform of the model.

        Returns:
            (samples,) as `InputTransform.fit` takes it. Every device finds the same.

        Raises:
            UserError: As `statistics.mean_squares`.
        """
        return mean_squares(self.train_dataset, spread(self._counted(), self.statistics_samples), transform)

    def _counted(self) -> NDArray[np.int64]:
        """Training samples that the scale of the input may be taken from, ascending."""
        return np.arange(len(self.train_dataset))

    def _at_hand(self) -> NDArray[np.int64]:
        """Training samples of the first epoch that are easily read before it, ascending."""
        return np.arange(self.samples_per_epoch)

    def training_examples(self, count: int, augmented: bool = True) -> dict[str, Tensor]:
        """Some training samples of the first epoch, evenly spread over it.

        Args:
            count: Their number, at most.
            augmented: Whether as the model sees them, or as they were before. Default True.

        Returns:
            A batch as in training.
        """
        samples = TrainingSamples(self._source(), self.augmentations if augmented else [], self.seed)
        places = self._at_hand()
        chosen = places[np.unique(np.linspace(0, len(places) - 1, count).astype(int))].tolist()
        return Completion(self.survey, samples.augmentations).collate([samples[0, place] for place in chosen])

    def split_table(self) -> list[dict[str, Any]]:
        """The folds as a table: part, first_row, last_row, family, fold."""
        return split_table(self.parts, self.blocks)

    def write_split(self, path: str | Path) -> None:
        """Write the folds as CSV, usually split.csv in the run folder.

        Raises:
            UserError: If the file cannot be written.
        """
        write_split(Path(path), self.split_table())

    @property
    def family_counts(self) -> dict[str, int]:
        """Number of training samples of each family."""
        counts = np.bincount(self.train_dataset.family_numbers, minlength=len(self.families))
        return dict(zip(self.families, counts.tolist(), strict=True))

    def training_velocities(self) -> Iterator[NDArray[np.float32]]:
        """The training labels one after the other, file by file, each (1, depth, width) float32 in m/s."""
        for index in range(len(self.train_dataset)):
            yield self.train_dataset.velocity(index).numpy()

    def mean_velocity(self) -> NDArray[np.float32]:
        """Mean of the training labels, (1, depth, width) float32 in m/s: the answer without any gathers."""
        total = np.zeros((1, *self.survey.grid))
        for velocity in self.training_velocities():
            total += velocity
        return (total / len(self.train_dataset)).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must share with this one: Lightning keeps it in the checkpoint."""
        return {
            "folds": self.folds,
            "fold": self.fold,
            "seed": self.seed,
            "training samples": self.samples_per_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on training where held-out samples have been trained on before.

        Raises:
            UserError: If the folds differ from those of the checkpoint.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        for name, now in self.state_dict().items():
            if state_dict.get(name, now) != now:
                raise UserError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, this run has {now}: "
                    "resume with the same data and folds, or start a new run from its weights."
                )
