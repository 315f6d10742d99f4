"""What can be wrong with a data set, and the list of what is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

KINDS: dict[str, str] = {
    "unreadable": "file that is damaged, cut short, or holds another shape or type than the survey's",
    "no partner": "gathers without velocity, or velocity without gathers",
    "other survey": "records that the survey did not make: shifted, scaled, filtered, or shot elsewhere",
    "not finite": "sample with NaN or infinity",
    "constant": "gathers of a shot, or map, that hold one and the same value",
    "out of range": "velocities that rock and water cannot have, such as km/s",
    "does not belong": "gathers that are not what their velocity gives",
    "duplicate": "the same again",
    "near-duplicate": "almost the same again",
    "mirror image": "the same again, left and right exchanged",
}
"""Name of each kind of problem, in the order of the lists: what it is."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: A name in `KINDS`.
        sentence: What is wrong and what to do, without the file and the row.
        file: The file, relative to the data set's root; "" if it is none in particular.
        row: Row of the sample in the file, from 0. Default: the whole file.
        family: The family. Default: none in particular.
        other_file: For copies, the file of the first one. Default none.
        other_row: For copies, the row of the first one. Default none.
        across_folds: Whether a copy lies in another fold than the first one. Default False.
    """

    kind: str
    sentence: str
    file: str = ""
    row: int | None = None
    family: str = ""
    other_file: str = ""
    other_row: int | None = None
    across_folds: bool = False

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorting key: by kind, copies across folds first, then by place."""
        return list(KINDS).index(self.kind), not self.across_folds, self.file, -1 if self.row is None else self.row


@dataclass(frozen=True)
class ProblemGroup:
    """Problems of one kind in one file, which people want to read as one.

    Attributes:
        kind: A name in `KINDS`.
        place: File and rows, such as "data1.npy, rows 0-3 and 7".
        sentence: That of the first.
        count: How many they are.
    """

    kind: str
    place: str
    sentence: str
    count: int

    def __str__(self) -> str:
        more = f" (and {self.count - 1:,} more like this)" if self.count > 1 else ""
        return f"{self.kind}: {self.place + ': ' if self.place else ''}{self.sentence}{more}"


def group(problems: Iterable[Problem]) -> list[ProblemGroup]:
    """Gather the problems of one kind in one file.

    Args:
        problems: Problems, in any order.

    Returns:
        The groups, in the order of `Problem.order`.
    """

    def key(problem: Problem) -> tuple[Any, ...]:
        return problem.order[:3]

    groups = []
    for _, members in groupby(sorted(problems, key=lambda problem: problem.order), key):
        found = list(members)
        if found[0].file:
            rows = _ranges([problem.row for problem in found if problem.row is not None])
            place = found[0].file + (f", {rows}" if rows else "")
            groups.append(ProblemGroup(found[0].kind, place, found[0].sentence, len(found)))
        else:  # each is about the whole data set or a family, and says another thing
            groups += [ProblemGroup(problem.kind, problem.family, problem.sentence, 1) for problem in found]
    return groups


def _ranges(rows: Sequence[int]) -> str:
    """Rows in words: "row 3", "rows 0-3 and 7"; the first few runs of many."""
    runs: list[list[int]] = []
    for row in sorted(set(rows)):
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    words = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]
    if len(words) > 4:
        words = [*words[:3], f"{len(words) - 3} more"]
    if not words:
        return ""
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"row{'' if len(set(rows)) == 1 else 's'} {listed}"
