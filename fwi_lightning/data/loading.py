"""How batches are loaded: in which order, on which of several devices, by which processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fwi_lightning.data.augment.base import Augmentation
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.resume import ResumableLoader
from fwi_lightning.data.sampler import EpochSampler, ShareSampler
from fwi_lightning.data.training import Completion, Source, TrainingSamples
from fwi_lightning.data.workers import worker_settings
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


class LoadingModule(lightning.LightningDataModule, ABC):
    """The loaders of a data module; what they load is made by its subclass, `GathersDataModule`."""

    # A validation set may be smaller than the number of devices; summed metrics do not mind an empty share.
    allow_zero_length_dataloader_with_multiple_devices = True

    survey: Survey
    seed: int
    batch_size: int
    eval_batch_size: int
    num_workers: int
    drop_last: bool
    simulate_on: str
    augmentations: list[Augmentation]
    val_dataset: GathersDataset
    test_dataset: GathersDataset

    @abstractmethod
    def _source(self) -> Source:
        """Where training samples come from."""

    def train_dataloader(self) -> ResumableLoader:
        """Batches in an order that depends on seed and epoch alone.

        Raises:
            UserError: If `drop_last` leaves not a single batch.
        """
        ranks, rank = self._ranks()
        samples = TrainingSamples(self._source(), self.augmentations, self.seed)
        sampler = self._sampler(len(samples), ranks, rank)
        if self.drop_last and len(sampler) < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size} is more than the {len(sampler)} training samples of a device, "
                "and drop_last leaves out incomplete batches: lower batch_size or set drop_last=false."
            )
        loader = ResumableLoader(
            samples,
            self.batch_size,
            sampler=sampler,
            collate_fn=None if self.simulate_on == "device" else self._completion().collate,
            drop_last=self.drop_last,
            **self._reading(),
        )
        if self.trainer is not None:
            # Lightning makes the first iterator, and workers read ahead, before it tells the sampler the
            # epoch.
            sampler.set_epoch(self.trainer.current_epoch)
            loader.trainer = self.trainer
        return loader

    def _sampler(self, length: int, ranks: int, rank: int) -> EpochSampler:
        """The order of so many training samples on one of the devices."""
        return EpochSampler(length, self.seed, ranks, rank)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Complete a training batch on its device, with `simulate_on="device"`. Lightning calls this."""
        return self._completion()(batch) if "missing" in batch else batch

    def _completion(self) -> Completion:
        return Completion(self.survey, self.augmentations)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The held-out fold, each sample once on one of the devices."""
        return self._eval_dataloader(self.val_dataset)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The test set, each sample once on one of the devices."""
        return self._eval_dataloader(self.test_dataset)

    def _eval_dataloader(self, dataset: GathersDataset) -> DataLoader[dict[str, Any]]:
        sampler = ShareSampler(len(dataset), *self._ranks())
        return DataLoader(dataset, self.eval_batch_size, sampler=sampler, **self._reading())

    def _ranks(self) -> tuple[int, int]:
        """Number of devices and the number of this one."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _reading(self) -> dict[str, Any]:
        """Settings of all loaders."""
        # An iterator draws a number when it is made. From torch's own generator, of which a resumed run makes one more,
        # that would change what a dropout draws after it.
        generator = torch.Generator().manual_seed(self.seed)
        return {"pin_memory": torch.cuda.is_available(), "generator": generator} | worker_settings(self.num_workers)
