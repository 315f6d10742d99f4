"""Gathers and velocity maps: files as people have them, folds, sampling, the LightningDataModules."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fwi_lightning.data.datamodule import GathersDataModule
    from fwi_lightning.data.dataset import GathersDataset
    from fwi_lightning.data.files import Part, find_parts
    from fwi_lightning.data.fresh import FreshDataModule
    from fwi_lightning.data.pairs import PairsDataModule
    from fwi_lightning.data.shards.datamodule import ShardsDataModule
    from fwi_lightning.data.synthetic import SyntheticDataModule
    from fwi_lightning.data.writing import write_survey

_HOMES = {
    "FreshDataModule": "fresh",
    "GathersDataModule": "datamodule",
    "GathersDataset": "dataset",
    "PairsDataModule": "pairs",
    "Part": "files",
    "ShardsDataModule": "shards.datamodule",
    "SyntheticDataModule": "synthetic",
    "find_parts": "files",
    "write_survey": "writing",
}

__all__ = [
    "FreshDataModule",
    "GathersDataModule",
    "GathersDataset",
    "PairsDataModule",
    "Part",
    "ShardsDataModule",
    "SyntheticDataModule",
    "find_parts",
    "write_survey",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: a worker that only reads needs no Lightning."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
