"""Arrays on disk that are computed row by row: a second start goes on with the first row that is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.progress import Progress

Compute = Callable[[range], Mapping[str, NDArray[np.float32]]]
"""Rows to their arrays, by name: (rows, *shape) each."""


def fill_rows(
    stem: Path, shapes: Mapping[str, tuple[int, ...]], compute: Compute, title: str, batch_size: int
) -> dict[str, NDArray[np.float32]]:
    """Compute arrays batch by batch, or read those that an earlier start has finished.

    Args:
        stem: Path of the files without their ends, `STEM.NAME.npy`.
        shapes: Name of each array -> its shape, (rows, ...), float32; all have as many rows.
        compute: Gives some rows of all of them.
        title: What the progress is called.
        batch_size: Rows at a time.

    Returns:
        The arrays by name, memory maps of the files.
    """
    files = {name: stem.with_name(f"{stem.name}.{name}.npy") for name in shapes}
    if not all(file.is_file() for file in files.values()):
        stem.parent.mkdir(parents=True, exist_ok=True)
        parts = {name: file.with_name(f".{file.name}.part") for name, file in files.items()}
        arrays = {name: _open(parts[name], shape) for name, shape in shapes.items()}
        count = len(next(iter(arrays.values())))
        begun = _first_missing(arrays)
        with Progress(title, begun, count) as progress:
            for start in range(begun, count, batch_size):
                places = range(start, min(start + batch_size, count))
                for name, values in compute(places).items():
                    arrays[name][start : places.stop] = values
                    arrays[name].flush()
                progress.advance(len(places))
        del arrays
        for name, file in files.items():
            parts[name].replace(file)
    return {name: np.load(file, mmap_mode="r") for name, file in files.items()}


def _open(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A file that an earlier start left, or a new one of NaN."""
    if path.is_file():
        with contextlib.suppress(ValueError, OSError):  # killed while it was made
            found = np.lib.format.open_memmap(path, "r+")
            if found.shape == shape:
                return found
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    array[:] = np.nan
    array.flush()
    return array


def _first_missing(arrays: Mapping[str, np.memmap]) -> int:
    """The first row that is NaN in any array: what a kill left."""
    firsts = []
    for array in arrays.values():
        blank = np.isnan(array.reshape(len(array), -1)).any(axis=1)
        firsts.append(int(blank.argmax()) if blank.any() else len(array))
    return min(firsts)
