"""The scale of a model's input: one pass over the training samples, whose results are kept beside the data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.beside import kept_beside
from fwi_lightning.data.dataset import GathersDataset, Lot
from fwi_lightning.data.locks import locked
from fwi_lightning.data.npy import npy_header
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.whole import WholeFile

if TYPE_CHECKING:  # a process that only simulates or reads needs no networks
    from fwi_lightning.models import InputTransform

VERSION = 1
"""Increase when `InputTransform.mean_squares` gives other numbers."""

HIDDEN = ".statistics"
"""Folder beside files of gathers, or beside shards."""

ELSEWHERE = Path("cache/statistics")
"""Folder for the statistics of files beside which nothing can be written."""

BATCH = 16
"""Samples in memory at a time."""


def mean_squares(dataset: GathersDataset, places: NDArray[np.int64], transform: InputTransform) -> NDArray[np.float64]:
    """Mean over samples of the squares of what a transform makes of their gathers, before its scale.

    What each sample adds, 1 kB, is kept by file: another fold, a smaller choice of samples and another model read
    nothing again, and a start after a stop goes on with the next file. The sum is made in the order of the files and
    in float64, so that it does not depend on what was kept. Where nothing can be kept, all is read each time.

    Args:
        dataset: The samples.
        places: Their places in the data set, ascending.
        transform: The transform.

    Returns:
        (samples,) float64, a mean for each time that the transform keeps.

    Raises:
        UserError: If a sample holds values that are not finite, or its file cannot be read.
    """
    lots = dataset.lots(places)
    files = [_kept(lot, transform) for lot in lots]
    missing = [len(_missing(_load(file, lot, transform), lot)) for file, lot in zip(files, lots, strict=True)]
    total, count = np.zeros(transform.samples), 0
    with _progress(len(places), sum(missing)) as progress:
        for lot, file in zip(lots, files, strict=True):
            rows = _of_lot(dataset, lot, file, transform, progress)
            total += rows.sum(axis=0, dtype=np.float64)
            count += len(rows)
    return total / max(count, 1)


def _kept(lot: Lot, transform: InputTransform) -> Path:
    facts = [VERSION, transform.amplitudes, transform.step, transform.samples]
    return kept_beside(lot.file, HIDDEN, ELSEWHERE, facts, content=lot.content)


def _load(file: Path, lot: Lot, transform: InputTransform) -> NDArray[np.float32]:
    """(rows of the file, samples), NaN where a row was not counted yet."""
    with suppress(OSError, ValueError, EOFError):
        found = np.load(file)
        if found.shape == (lot.size, transform.samples):
            return found.astype(np.float32)
    return np.full((lot.size, transform.samples), np.nan, np.float32)


def _missing(found: NDArray[np.float32], lot: Lot) -> NDArray[np.int64]:
    """Which of a lot's samples were not counted yet, as positions in it."""
    return np.flatnonzero(np.isnan(found[lot.rows, 0]))


def _of_lot(
    dataset: GathersDataset, lot: Lot, file: Path, transform: InputTransform, progress: Progress | None
) -> NDArray[np.float32]:
    """What each sample of a lot adds, (samples of the lot, samples); a broken shard adds nothing."""
    found = _load(file, lot, transform)
    if len(_missing(found, lot)):
        with ExitStack() as stack:
            with suppress(OSError):  # where nothing can be written, everyone counts for itself
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(file.parent / ".lock", announce=False))
            found = _load(file, lot, transform)  # another process may have counted meanwhile
            try:
                _count(dataset, lot, found, transform, progress)
            except dataset.unreadable:
                return found[:0]
            finally:
                _save(file, found)
    return found[lot.rows]


def _count(
    dataset: GathersDataset, lot: Lot, found: NDArray[np.float32], transform: InputTransform, progress: Progress | None
) -> None:
    """Fill in the rows that are missing."""
    missing = _missing(found, lot)
    for first in range(0, len(missing), BATCH):
        some = missing[first : first + BATCH]
        gathers = torch.stack([dataset.gathers(place) for place in lot.places[some].tolist()])
        found[lot.rows[some]] = transform.mean_squares(gathers).numpy()
        if progress is not None:
            progress.advance(len(some))


@contextmanager
def _progress(samples: int, missing: int) -> Iterator[Progress | None]:
    """Nothing to see where nothing is to be read."""
    if not missing:
        yield None
        return
    with Progress("scale of the input", samples - missing, samples) as progress:
        yield progress


def _save(file: Path, found: NDArray[np.float32]) -> None:
    """Keep it if there is room: training does not end for want of it."""
    with suppress(OSError):
        whole = WholeFile(file, f".{os.getpid()}")
        try:
            whole.write(npy_header(np.dtype("<f4"), found.shape))
            whole.write(found.astype("<f4").data.cast("B"))
            whole.finish()
            whole.publish()
        except BaseException:
            whole.discard()
            raise


def spread(places: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most so many of some places, evenly spread over them; all for None."""
    if most is None or most >= len(places):
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(int)]
