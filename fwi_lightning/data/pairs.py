"""The data of an adaptation: pairs that were made of predictions, and some of the original kind beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.datamodule import GathersDataModule
from fwi_lightning.data.files import Part
from fwi_lightning.data.folds import Block

KEPT = "kept"
"""Folder inside the root, or link to one, with samples of the original kind."""


class PairsDataModule(GathersDataModule):
    """Trains on all pairs of a folder; none is held out, since they have no truth but what a model has predicted.

    Args:
        root: As `GathersDataModule`. What lies in its folder `KEPT` is of the original kind.
        families: Names that `family` is to count in first, those of the checkpoint. Default: none.
        kept_share: Samples of the original kind, evenly spread, for each pair. Default 0.
        **settings: As `GathersDataModule`.
    """

    def __init__(self, root: str, families: Sequence[str] = (), kept_share: float = 0.0, **settings: Any) -> None:
        super().__init__(root=root, **settings)
        self.first_families, self.kept_share = list(families), kept_share

    def _name_families(self, parts: Sequence[Part]) -> None:
        super()._name_families(parts)
        others = [family for family in self.families if family not in self.first_families]
        self.families = self.first_families + others

    def _divide(self, parts: list[Part]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Fold -1: none holds them out.
        self.blocks = [Block(number, 0, part.samples, -1) for number, part in enumerate(parts)]
        original = np.concatenate([np.full(part.samples, part.name.startswith(f"{KEPT}/")) for part in parts])
        pairs, kept = np.flatnonzero(~original), np.flatnonzero(original)
        count = min(len(kept), round(self.kept_share * len(pairs)))
        chosen = kept[np.linspace(0, len(kept) - 1, count).astype(int)] if count else kept[:0]
        return np.concatenate([pairs, chosen]), np.zeros(0, np.int64)
