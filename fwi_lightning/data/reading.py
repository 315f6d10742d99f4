"""How samples are read: from the files as they lie, from memory, or from copies of half the size on a fast disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fwi_lightning.data.files import Part
from fwi_lightning.data.locks import locked
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError

READINGS = ("map", "memory", "half")

BATCH = 64
"""Samples copied at a time."""


def open_parts(parts: Sequence[Part], reading: str, folder: str) -> Maps:
    """What the samples of some parts are read through.

    Args:
        parts: The parts.
        reading: "map": memory maps, of which the system keeps in memory what fits; the fastest that any disk allows
            once read. "memory": every file is read whole when first needed and stays, in each process; for disks that
            are slow at random places. "half": gathers come from the float16 copies of `write_halves`, for data that
            fits into memory or onto the fast disk at half its size only; they differ by up to 5e-4 of each value.
            Thinned files are read as they lie.
        folder: Folder of the copies.

    Raises:
        UserError: If the files are larger than the memory that is free.
    """
    if reading == "memory":
        _check_memory(parts)
        return Maps(keep=2 * len(parts), in_memory=True)
    copied = [part for part in parts if reading == "half" and part.kept is None]
    return Maps(copies={part.gathers: half_file(part.gathers, folder) for part in copied})


def half_file(path: Path, folder: str) -> Path:
    """Where the float16 copy of a file is kept: a file that was changed has another place."""
    status = path.stat()
    facts = [str(path.absolute()), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Path(folder) / f"{path.stem}-{digest}.npy"


def write_halves(parts: Sequence[Part], folder: str) -> None:
    """Copy gathers in float16; a start after a stop goes on with the next file, one at the same time waits.

    Args:
        parts: The parts.
        folder: Where to; made if missing.

    Raises:
        UserError: If a value is too large for float16, or the folder cannot be written.
    """
    parts = [part for part in parts if part.kept is None]
    missing = [part for part in parts if not half_file(part.gathers, folder).is_file()]
    if not missing:
        return
    samples = sum(part.samples for part in parts)
    with Progress("float16 copies", samples - sum(part.samples for part in missing), samples) as progress:
        for part in missing:
            file = half_file(part.gathers, folder)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with locked(file.parent / ".lock"):
                    if not file.is_file():
                        _write_half(part, file)
            except OSError as error:
                raise UserError(
                    f"{folder} cannot be written ({error.strerror or error}): set data.half_folder to a folder you may "
                    "write to, on a disk with space."
                ) from None
            progress.advance(part.samples)


def _write_half(part: Part, file: Path) -> None:
    """One copy, under a temporary name until it is whole."""
    gathers = Maps()[part.gathers].reshape(part.samples, *part.shape)
    temporary = file.with_suffix(".tmp")
    try:
        # The header of the .npy format, then the samples one batch after the other: never a whole file in memory.
        with temporary.open("wb") as stream:
            header = {"descr": "<f2", "fortran_order": False, "shape": gathers.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for first in range(0, part.samples, BATCH):
                batch = np.asarray(gathers[first : first + BATCH], dtype=np.float32)
                large = np.nonzero((np.abs(batch) > np.finfo(np.float16).max).any(axis=(1, 2, 3)))[0]
                if len(large):
                    raise UserError(
                        f"{part.gathers}, sample {first + large[0]}, has values above 65504, the largest of float16: "
                        "use data.reading=map."
                    )
                stream.write(batch.astype("<f2").tobytes())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _check_memory(parts: Sequence[Part]) -> None:
    """Refuse to read more than there is room for, where the system tells."""
    needed = sum(path.stat().st_size for part in parts for path in (part.gathers, part.velocity) if path is not None)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if needed > 0.9 * free:
        raise UserError(
            f"data.reading=memory needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: use map, or half."
        )
