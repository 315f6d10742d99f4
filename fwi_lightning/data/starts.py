"""Samples with what a refiner reads besides the gathers: a map to correct, and what the wave equation says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.files import Part

ARRAYS = ("start", "residual", "gradient")
"""Files NAME.npy in the folder of a part, with a row for each of its samples."""

StartsOf = Callable[[Part], Path]
"""The folder of a part's arrays."""


class StartsDataset(GathersDataset):
    """Samples that also have the arrays named in `ARRAYS`, float32, as `Sample` describes them.

    Args:
        starts: Gives the folder of each part.
        *arguments: As `GathersDataset`.
    """

    def __init__(self, starts: StartsOf, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.starts = {part: starts(part) for part in self.parts}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample."""
        part, row = self.locate(index)
        folder = self.starts[part]
        arrays = {name: self._maps[folder / f"{name}.npy"][row].astype(np.float32) for name in ARRAYS}
        return super().__getitem__(index) | {name: torch.from_numpy(array) for name, array in arrays.items()}
