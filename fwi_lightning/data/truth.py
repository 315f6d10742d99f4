"""The true maps of files that were predicted: found by name, beside them or in a folder of their own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fwi_lightning.data.files import PARTNERS, Part, velocity_samples
from fwi_lightning.data.npy import SUFFIXES, read_header
from fwi_lightning.errors import UserError
from fwi_lightning.survey import OPENFWI, Survey

_WORD = re.compile(rf"({'|'.join(PARTNERS)})(?![a-zA-Z])")


def with_truth(
    parts: Sequence[Part], truth: str | Path, survey: Survey = OPENFWI, setting: str = "truth"
) -> list[Part]:
    """The same parts with their velocity files.

    Args:
        parts: Files of gathers.
        truth: One velocity file for one file of gathers; or a folder in which each file has the name of its gathers
            or that name with the first word exchanged (data to model, seis to vel), in the same or no subfolder.
        survey: The survey, whose grid the maps must have; those of a line with another number of receivers have a
            column for each. Default OPENFWI.
        setting: The setting that gave the path, for the messages. Default "truth".

    Returns:
        Parts with `velocity` set.

    Raises:
        UserError: If the path does not exist, a file is missing, or does not hold as many maps as there are samples.
    """
    root = Path(truth)
    if not root.exists():
        raise UserError(f"{root} does not exist: set {setting}= to a velocity file or to the folder that holds them.")
    if root.is_file() and len(parts) > 1:
        raise UserError(
            f"{root} is one file for {len(parts)} files of gathers: set {setting}= to the folder with a file for each."
        )
    paired = []
    for part in parts:
        path = root if root.is_file() else _find(part, root)
        width = None if part.shape[2] == survey.receivers else part.shape[2]
        samples = velocity_samples(path, read_header(path), survey, width)
        if samples != part.samples:
            raise UserError(
                f"{path} holds {samples} maps and {part.gathers} {part.samples} samples: they do not belong together."
            )
        paired.append(replace(part, velocity=path))
    return paired


def _find(part: Part, root: Path) -> Path:
    candidates = [root / f"{name}{suffix}" for suffix in SUFFIXES for name in _names(Path(part.name))]
    for path in candidates:
        # Truth may lie beside the gathers: the gathers themselves are not it.
        if path.is_file() and not path.samefile(part.gathers):
            return path
    npy = [path for path in candidates if path.suffix == ".npy"]
    raise UserError(f"{root} holds no true map for {part.gathers}: add {candidates[0]} or {npy[-1]}.")


def _names(name: Path) -> Iterator[Path]:
    """Names that a velocity file may have: words exchanged in any part of the path; then without its folder."""
    choices = [dict.fromkeys([word, _WORD.sub(lambda match: PARTNERS[match[1]], word, count=1)]) for word in name.parts]
    found = [Path(*words) for words in itertools.product(*choices)]
    yield from found
    yield from dict.fromkeys(Path(path.name) for path in found if len(path.parts) > 1)
