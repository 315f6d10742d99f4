"""Illumination of labelled samples: computed once, kept in a folder, read with every sample after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fwi_lightning.data.dataset import read_velocity
from fwi_lightning.data.files import Part
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.writing import locked
from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey

VERSION = 1
"""Increase when `physics.illuminate` gives other numbers."""

BATCH = 8
"""Samples simulated at a time."""


def illumination_file(part: Part, survey: Survey, folder: Path) -> Path:
    """Where the illumination of a part is kept: another survey, or another velocity file, has another place.

    Args:
        part: A part with labels.
        survey: The survey.
        folder: The folder of all illuminations.

    Returns:
        The path of a .npy file of (samples, depth, width) float32, whether it is there or not.
    """
    assert part.velocity is not None
    status = part.velocity.stat()
    facts = [VERSION, survey.to_dict(), str(part.velocity.absolute()), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return folder / f"{part.velocity.stem}-{digest}.npy"


def write_illuminations(parts: Sequence[Part], survey: Survey, folder: Path) -> list[Path]:
    """Simulate what is missing; a start after a stop goes on with the next file, one at the same time waits.

    Args:
        parts: Parts with labels.
        survey: The survey.
        folder: The folder of all illuminations; made if missing.

    Returns:
        The file of each part.

    Raises:
        UserError: If a velocity file cannot be read or the folder cannot be written.
    """
    files = [illumination_file(part, survey, folder) for part in parts]
    if all(file.is_file() for file in files):  # without a lock: it may lie where nothing can be written
        return files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _write_missing(parts, files, survey)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): set data.illumination to a folder you may write "
            "to, on a disk with space."
        ) from None
    return files


def _write_missing(parts: Sequence[Part], files: Sequence[Path], survey: Survey) -> None:
    missing = [(part, file) for part, file in zip(parts, files, strict=True) if not file.is_file()]
    samples = sum(part.samples for part in parts)
    if missing:
        with Progress("illumination", samples - sum(part.samples for part, _ in missing), samples) as progress:
            for part, file in missing:
                _write(part, file, survey, progress)


def _write(part: Part, file: Path, survey: Survey, progress: Progress) -> None:
    """One file, under a temporary name until it is whole."""
    maps, illumination = Maps(), np.empty((part.samples, *survey.grid), np.float32)
    for start in range(0, part.samples, BATCH):
        rows = range(start, min(start + BATCH, part.samples))
        velocity = np.stack([read_velocity(part, row, maps)[0] for row in rows])
        illumination[rows.start : rows.stop] = illuminate(torch.from_numpy(velocity), survey)[1].numpy()
        progress.advance(len(rows))
    temporary = file.with_name(f".{file.name}.part")
    with temporary.open("wb") as stream:
        np.save(stream, illumination)
    temporary.replace(file)
