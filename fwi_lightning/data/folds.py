"""Which samples are held out: folds with every family in each, files on one side only where possible."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.files import Part
from fwi_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """A run of neighbouring samples of one file that stay together.

    Attributes:
        part: Index of the part.
        start: First row.
        stop: Row after the last.
        fold: The fold that holds the block out, from 0.
    """

    part: int
    start: int
    stop: int
    fold: int


def check_fold(fold: int, folds: int) -> None:
    """Refuse a fold that cannot be.

    Args:
        fold: The fold to hold out.
        folds: Number of folds.

    Raises:
        UserError: If there are fewer than two folds, or the fold is none of them.
    """
    if folds < 2:
        raise UserError(f"folds must be at least 2 (one is held out, the rest is trained on), got {folds}.")
    if not 0 <= fold < folds:
        raise UserError(f"fold must be 0 to {folds - 1} with folds={folds}, got {fold}.")


def assign_folds(parts: Sequence[Part], folds: int, seed: int) -> list[Block]:
    """Divide every family evenly among the folds.

    A family with at least as many files as folds is divided by whole files: the largest first, each to the
    fold that has fewest samples of the family so far. (scikit-learn's StratifiedGroupKFold balances class
    proportions over all groups at once and may leave a small family out of a fold; here a family is divided
    on its own, so each fold gets at least one of its files.) A family with fewer files, as in Kaggle's two
    files a family, is divided into as many contiguous runs as folds, which is logged.

    Runs are contiguous because neighbours in a file can be related (drawn one after the other, or cut from
    one picture): scattered single samples would put near twins on both sides and make the validation error
    look too good, while a run has neighbours on the other side at its two ends only.

    Args:
        parts: The parts.
        folds: Number of folds, at least 2.
        seed: Decides which file or run goes to which fold; the same seed gives the same folds.

    Returns:
        Blocks that cover every sample once, in the order of the parts.

    Raises:
        UserError: If there are fewer than two folds, or fewer samples in a family than folds.
    """
    check_fold(0, folds)
    totals = np.zeros(folds, dtype=np.int64)
    blocks: list[Block] = []
    cut = []
    for number, family in enumerate(sorted({part.family for part in parts})):
        members = [index for index, part in enumerate(parts) if part.family == family]
        generator = np.random.default_rng((seed, number))
        if len(members) >= folds:
            divided = _whole_files(parts, members, totals, generator)
        else:
            divided = _runs(parts, members, folds, family, generator)
            cut.append(family)
        for block in divided:
            totals[block.fold] += block.stop - block.start
        blocks += divided
    if cut:
        log.info(
            "%s: fewer files than folds=%d, so files are divided into contiguous blocks.",
            ", ".join(cut),
            folds,
        )
    return sorted(blocks, key=lambda block: (block.part, block.start))


def _whole_files(
    parts: Sequence[Part], members: list[int], totals: NDArray[np.int64], generator: np.random.Generator
) -> list[Block]:
    """Each file to the fold with the fewest samples of this family, then of all families so far."""
    sizes = np.zeros_like(totals)
    shuffled = generator.permutation(members)
    tie = generator.permutation(len(totals))
    blocks = []
    for index in sorted(shuffled.tolist(), key=lambda index: -parts[index].samples):  # stable: ties stay shuffled
        fold = int(np.lexsort((tie, totals + sizes, sizes))[0])
        sizes[fold] += parts[index].samples
        blocks.append(Block(index, 0, parts[index].samples, fold))
    return blocks


def _runs(
    parts: Sequence[Part], members: list[int], folds: int, family: str, generator: np.random.Generator
) -> list[Block]:
    """Cut the files of a family, laid end to end, into one run a fold; lengths differ by one at most."""
    ends = np.cumsum([parts[index].samples for index in members])
    total = int(ends[-1])
    if total < folds:
        change = f"set folds to {total} or less, or add data of it" if total > 1 else "add data of it or leave it out"
        raise UserError(f"family {family} has {total} samples, fewer than folds={folds}: {change}.")
    cuts = [total * fold // folds for fold in range(folds + 1)]
    blocks = []
    for fold, first, last in zip(generator.permutation(folds).tolist(), cuts[:-1], cuts[1:], strict=True):
        for index, end in zip(members, ends.tolist(), strict=True):
            begin = end - parts[index].samples
            start, stop = max(first, begin), min(last, end)
            if start < stop:
                blocks.append(Block(index, start - begin, stop - begin, fold))
    return blocks


def rows_of_fold(
    parts: Sequence[Part], blocks: Sequence[Block], fold: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The samples to train on and those held out.

    Args:
        parts: The parts.
        blocks: Their blocks, from `assign_folds`.
        fold: The fold to hold out, from 0.

    Returns:
        Global numbers of the training samples and of the validation samples, each ascending.

    Raises:
        UserError: If there is no such fold.
    """
    check_fold(fold, 1 + max(block.fold for block in blocks))
    starts = np.cumsum([0, *(part.samples for part in parts)])
    held: list[NDArray[np.int64]] = []
    kept: list[NDArray[np.int64]] = []
    for block in blocks:
        side = held if block.fold == fold else kept
        side.append(np.arange(block.start, block.stop) + starts[block.part])
    return np.concatenate(kept), np.concatenate(held)


def split_table(parts: Sequence[Part], blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The folds as a table for people: one row a block.

    Returns:
        Rows of part (its name), first_row, last_row (both inclusive, counted from 0 in the file), family and
        fold.
    """
    return [
        {
            "part": parts[block.part].name,
            "first_row": block.start,
            "last_row": block.stop - 1,
            "family": parts[block.part].family,
            "fold": block.fold,
        }
        for block in blocks
    ]


def write_split(path: Path, table: Sequence[dict[str, Any]]) -> None:
    """Write a split table as CSV, whole or not at all.

    Args:
        path: The file, usually split.csv in the run folder.
        table: Rows from `split_table`.

    Raises:
        UserError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["part", "first_row", "last_row", "family", "fold"])
            writer.writeheader()
            writer.writerows(table)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): use a folder you may write to.") from None
    finally:
        temporary.unlink(missing_ok=True)
