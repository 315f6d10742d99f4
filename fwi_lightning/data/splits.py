"""Lists of files: OpenFWI names the training and validation files of a family in a text file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fwi_lightning.errors import UserError


def read_split(
    split: Path, root: Path, family_of: Callable[[Path], str], labels: bool = True
) -> list[tuple[Path, Path | None]]:
    """Read a list of pairs, one a line: `seismic path<TAB>velocity path`.

    A path may be absolute, relative to the root, to a family's folder (the family then stands in the name of
    the list, as in flatvel_a_train.txt) or to the list. The lists that come with OpenFWI hold absolute paths
    of the authors' machine: of a path that does not exist, leading folders are dropped until the rest is
    found.

    Args:
        split: The list, absolute or relative to the working directory or to the root.
        root: Root of the data set.
        family_of: Family of a path.
        labels: Whether each line must name a velocity file. Default True.

    Returns:
        The pairs in the order of the list, each once; the velocity is None without labels.

    Raises:
        UserError: If the list does not exist or is empty, a line has no two paths, or a file is not found.
    """
    path = next((path for path in (split.expanduser(), root / split) if path.is_file()), None)
    if path is None:
        raise UserError(f"{split} does not exist, nor does {root / split}: set split to the list of files to use.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    pairs: dict[tuple[Path, Path | None], None] = {}
    bases = list(_bases(path, root, family_of))
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        # Tabs as published; a list typed by hand may have blanks instead.
        words = [word.strip() for word in line.split("\t")] if "\t" in line else line.split()
        if len(words) > 2 or (labels and len(words) != 2):
            raise UserError(f"{path}, line {number}, reads {line!r}: write 'seismic path<TAB>velocity path'.")
        found = [_find(Path(word), bases, path, number, family_of) for word in words]
        pairs[found[0], found[1] if labels else None] = None
    if not pairs:
        raise UserError(f"{path} names no files: write one 'seismic path<TAB>velocity path' a line.")
    return list(pairs)


def _bases(split: Path, root: Path, family_of: Callable[[Path], str]) -> Iterator[Path]:
    """Folders that the paths of a list may be relative to."""
    yield root
    yield split.parent
    if root.is_dir():
        family = family_of(Path(split.stem) / "list")
        # The folder of the list's family; "unknown" is no family and matches no folder.
        yield from (
            folder
            for folder in sorted(root.iterdir())
            if folder.is_dir() and family != "unknown" and family_of(folder / "file") == family
        )


def _find(listed: Path, bases: list[Path], split: Path, line: int, family_of: Callable[[Path], str]) -> Path:
    """The file on this machine that a path of the list means."""
    if listed.is_absolute() and listed.is_file():
        return listed
    family = family_of(listed)
    words = [word for word in listed.parts if word not in (listed.anchor, ".")]
    for start in range(len(words)):
        for base in bases:
            path = base.joinpath(*words[start:])
            # Once "FlatVel_A" is dropped, "data/data1.npy" also exists in every other family's folder.
            if path.is_file() and family in ("unknown", family_of(path)):
                return path
    raise UserError(
        f"{split}, line {line}, names {listed}, which is not under {bases[0]}: correct the list or the root."
    )
