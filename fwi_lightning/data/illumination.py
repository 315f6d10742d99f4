"""Illumination of labelled samples: computed once, kept in a folder, read with every sample after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fwi_lightning.data.beside import kept_beside
from fwi_lightning.data.dataset import read_velocity
from fwi_lightning.data.files import Part
from fwi_lightning.data.locks import locked
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey

VERSION = 1
"""Increase when `physics.illuminate` gives other numbers."""

HIDDEN = ".illumination"
"""Folder beside velocity files; scans for data pass over it."""

ELSEWHERE = Path("cache/illumination")
"""Folder for the illumination of files beside which nothing can be written."""

BATCH = 16
"""Samples simulated at a time."""


def illumination_file(part: Part, survey: Survey, folder: str | None = None) -> Path:
    """Where the illumination of a part is kept: another survey, or another velocity file, has another place.

    Args:
        part: A part with labels.
        survey: The survey.
        folder: The folder of all illuminations. Default: a hidden folder beside the velocity file, or `ELSEWHERE` where
            that cannot be written.

    Returns:
        The path of a .npy file of (samples, depth, width) float32, whether it is there or not.
    """
    assert part.velocity is not None
    return kept_beside(part.velocity, HIDDEN, ELSEWHERE, [VERSION, survey.to_dict()], folder)


def write_illuminations(parts: Sequence[Part], survey: Survey, folder: str | None = None) -> list[Path]:
    """Simulate what is missing; a start after a stop goes on with the next file, one at the same time waits.

    Args:
        parts: Parts with labels.
        survey: The survey.
        folder: As `illumination_file`; made if missing.

    Returns:
        The file of each part.

    Raises:
        UserError: If a velocity file cannot be read or the folder cannot be written.
    """
    files = [illumination_file(part, survey, folder) for part in parts]
    missing = [(part, file) for part, file in zip(parts, files, strict=True) if not file.is_file()]
    if not missing:
        return files
    samples = sum(part.samples for part in parts)
    with Progress("illumination", samples - sum(part.samples for part, _ in missing), samples) as progress:
        for part, file in missing:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with locked(file.parent / ".lock"):
                    if not file.is_file():  # another process may have written it meanwhile
                        _write(part, file, survey)
            except OSError as error:
                raise UserError(
                    f"{file.parent} cannot be written ({error.strerror or error}): set data.illumination to a folder "
                    "you may write to, on a disk with space."
                ) from None
            progress.advance(part.samples)
    return files


def _write(part: Part, file: Path, survey: Survey) -> None:
    """One file, under a temporary name until it is whole. On a GPU where there is one: it takes minutes on a CPU."""
    maps, illumination = Maps(), np.empty((part.samples, *survey.grid), np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for start in range(0, part.samples, BATCH):
        rows = range(start, min(start + BATCH, part.samples))
        velocity = torch.from_numpy(np.stack([read_velocity(part, row, maps)[0] for row in rows])).to(device)
        try:
            illumination[rows.start : rows.stop] = illuminate(velocity, survey)[1].cpu().numpy()
        except UserError as error:
            raise UserError(
                f"{part.velocity}, samples {rows.start} to {rows.stop - 1}, cannot be simulated: {error} "
                "loss=l1 trains without a simulation."
            ) from None
    temporary = file.with_name(f".{file.name}.part")
    with temporary.open("wb") as stream:
        np.save(stream, illumination)
    temporary.replace(file)
