"""Samples by number: gathers and velocity as tensors, read from the files as they lie."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fwi_lightning.data.files import Part
from fwi_lightning.data.npy import Maps
from fwi_lightning.errors import UserError

PLAUSIBLE = (100.0, 12000.0)
"""Velocities that rock and water can have, m/s. Labels in km/s or scaled to [-1, 1] lie below."""


@dataclass(frozen=True, eq=False)
class Lot:
    """Samples of a data set that lie in one file.

    Attributes:
        file: The file.
        size: Samples in it.
        places: Places in the data set of those chosen.
        rows: Their rows in the file.
        content: What stands for the content of the file; None: its size and time.
    """

    file: Path
    size: int
    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    content: tuple[Any, ...] | None = None


class GathersDataset(Dataset[dict[str, Any]]):
    """The samples of some parts, or of some rows of them.

    An item is a dict of
        gathers: (shots, time, receivers) float32 tensor,
        velocity: (1, depth, width) float32 tensor in m/s, where the part has labels,
        illumination: (1, depth, width) float32 tensor, where `illumination` has it,
        family: int, index into `families`,
        index: int, number of the sample among all samples of the parts, the same whichever rows are chosen.

    Attributes:
        parts: The parts.
        families: Names of the families.
        rows: (samples,) int64, the global number of each sample.
        unreadable: Errors of files without which training goes on.

    Args:
        parts: Parts as `find_parts` returns them; samples are numbered through them in this order.
        rows: Global numbers of the samples to use, in the order wanted. Default: all.
        families: Names that `family` counts in. Default: those of the parts, sorted.
        illumination: The file of each part, as `write_illuminations` returns them. Default: none.
        maps: What the files are read through; see `open_parts`. Default: memory maps.
    """

    unreadable: tuple[type[UserError], ...] = ()

    def __init__(
        self,
        parts: Sequence[Part],
        rows: Sequence[int] | NDArray[np.int64] | None = None,
        families: Sequence[str] | None = None,
        illumination: Sequence[Path] | None = None,
        maps: Maps | None = None,
    ) -> None:
        self.parts = list(parts)
        self.illumination = dict(zip(self.parts, illumination, strict=True)) if illumination else {}
        self.families = list(families) if families is not None else sorted({part.family for part in parts})
        self._ends = list(accumulate(part.samples for part in self.parts))
        self.rows = np.arange(self._ends[-1] if self._ends else 0) if rows is None else np.array(rows, np.int64)
        self._family = {name: number for number, name in enumerate(self.families)}
        self._maps = Maps() if maps is None else maps  # an empty one counts as false

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            UserError: If the file has gone or holds values that no gathers or velocity map can have.
        """
        part, row = self.locate(index)
        item = {
            "gathers": torch.from_numpy(read_gathers(part, row, self._maps)),
            "family": self._family[part.family],
            "index": int(self.rows[index]),
        }
        if part.velocity is not None:
            item["velocity"] = torch.from_numpy(read_velocity(part, row, self._maps))
        if part in self.illumination:
            item["illumination"] = torch.from_numpy(self._maps[self.illumination[part]][row][None].copy())
        return item

    def gathers(self, index: int) -> torch.Tensor:
        """The gathers of sample `index` alone, (shots, time, receivers) float32.

        Raises:
            UserError: As `read_gathers`.
        """
        return torch.from_numpy(read_gathers(*self.locate(index), self._maps))

    def lots(self, places: NDArray[np.int64]) -> list[Lot]:
        """Some samples by the file that their gathers lie in.

        Args:
            places: Their places in the data set.
        """
        position = np.searchsorted(self._ends, self.rows[places], side="right")
        lots = []
        for number in np.unique(position).tolist():
            part, mine = self.parts[number], places[position == number]
            file = self._maps.copies.get(part.gathers, part.gathers)
            lots.append(Lot(file, part.samples, mine, self.rows[mine] - (self._ends[number] - part.samples)))
        return lots

    def velocity(self, index: int) -> torch.Tensor:
        """The map of sample `index` alone, (1, depth, width) float32 in m/s.

        Raises:
            UserError: As `read_velocity`.
        """
        return torch.from_numpy(read_velocity(*self.locate(index), self._maps))

    def spare(self, index: int) -> dict[int, torch.Tensor] | None:
        """Gathers of the shots of sample `index` that only its file has, (time, receivers) by column; None if none."""
        part, row = self.locate(index)
        if part.kept is None or len(part.shots) == len(part.kept.survey.shot_columns):
            return None
        places = enumerate(part.kept.survey.shot_columns)
        more = {column: place for place, column in places if place not in part.shots}
        record = self._maps[part.gathers][row]
        return {column: torch.from_numpy(record[place].astype(np.float32)) for column, place in more.items()}

    @cached_property
    def family_numbers(self) -> NDArray[np.int64]:
        """(samples,) int64, what `family` is of each sample."""
        numbers = np.array([self._family[part.family] for part in self.parts], np.int64)
        return numbers[np.searchsorted(self._ends, self.rows, side="right")]

    def locate(self, index: int) -> tuple[Part, int]:
        """The part that sample `index` of this dataset comes from, and its row in that part."""
        number = int(self.rows[index])
        position = bisect_right(self._ends, number)
        part = self.parts[position]
        return part, number - (self._ends[position] - part.samples)

    def name(self, index: int) -> tuple[str, int]:
        """Name of the part that sample `index` of this dataset comes from, and its row in that part."""
        part, row = self.locate(index)
        return part.name, row


def read_gathers(part: Part, row: int, maps: Maps) -> NDArray[np.float32]:
    """Read the gathers of one sample.

    Args:
        part: The part.
        row: Row of the sample in the part.
        maps: Open memory maps to use and add to.

    Returns:
        (shots, time, receivers) float32, an array of its own.

    Raises:
        UserError: If the file has gone, or the sample holds a value that is not finite.
    """
    gathers = raw_gathers(part, row, maps)
    if not np.isfinite(gathers).all():
        raise UserError(
            f"{part.gathers}, sample {row}, holds values that are not finite "
            f"({not_finite(gathers)}): gathers must be finite numbers, mend or remove the sample."
        )
    return gathers


def read_velocity(part: Part, row: int, maps: Maps) -> NDArray[np.float32]:
    """Read the velocity map of one sample.

    Args:
        part: A part with labels.
        row: Row of the sample in the part.
        maps: Open memory maps to use and add to.

    Returns:
        (1, depth, width) float32 in m/s, an array of its own.

    Raises:
        UserError: If the part has no labels, the file has gone, or the map holds values that are not finite
            or outside `PLAUSIBLE`.
    """
    velocity = raw_velocity(part, row, maps)
    if not np.isfinite(velocity).all():
        raise UserError(
            f"{part.velocity}, sample {row}, holds values that are not finite "
            f"({not_finite(velocity)}): velocities must be finite numbers, mend or remove the sample."
        )
    least, most = float(velocity.min()), float(velocity.max())
    if least < PLAUSIBLE[0] or most > PLAUSIBLE[1]:
        raise UserError(
            f"{part.velocity}, sample {row}, holds velocities from {least:g} to {most:g}: labels must be in "
            f"m/s, {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} (not km/s, not scaled to [-1, 1]); convert them."
        )
    return velocity


def raw_gathers(part: Part, row: int, maps: Maps) -> NDArray[np.float32]:
    """The gathers of one sample whatever their values; arguments and errors of the files as `read_gathers`."""
    if part.kept is not None:
        return _rows(part.gathers, maps, part.samples, part.kept.shape)[row][list(part.shots)].astype(np.float32)
    return np.array(_rows(part.gathers, maps, part.samples, part.shape)[row], dtype=np.float32)


def raw_velocity(part: Part, row: int, maps: Maps) -> NDArray[np.float32]:
    """The velocity map of one sample whatever its values; arguments and errors of the files as `read_velocity`."""
    if part.velocity is None:
        raise UserError(f"{part.gathers} has no velocity labels: use data with labels.")
    array = maps[part.velocity]
    grid = tuple(length for length in array.shape if length != 1)[-2:]
    return np.array(_rows(part.velocity, maps, part.samples, (1, *grid))[row], dtype=np.float32)


def _rows(path: Any, maps: Maps, samples: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of a file as (samples, *shape), whatever axes of length one it was saved with."""
    array = maps[path]
    try:
        return array.reshape(samples, *shape)
    except ValueError:
        raise UserError(
            f"{path} has changed since the scan: it now has shape {array.shape}, start the command again."
        ) from None


def not_finite(array: NDArray[np.float32]) -> str:
    """How many values are NaN and how many infinite, in words."""
    return f"{int(np.isnan(array).sum())} NaN, {int(np.isinf(array).sum())} infinite"
