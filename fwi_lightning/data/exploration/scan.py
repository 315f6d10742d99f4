"""One pass through the files: every sample is read once, judged, measured, and left with a signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.dataset import PLAUSIBLE, not_finite, raw_gathers, raw_velocity
from fwi_lightning.data.exploration.families import Example, Family
from fwi_lightning.data.exploration.problems import Problem
from fwi_lightning.data.exploration.signatures import (
    digest,
    gathers_shape,
    gathers_signature,
    velocity_shape,
    velocity_signature,
)
from fwi_lightning.data.files import Part
from fwi_lightning.data.npy import Maps
from fwi_lightning.errors import UserError
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.survey import Survey


class Stack:
    """What is kept of the gathers, or of the maps, of every sample of a scan: about 200 bytes each.

    Attributes:
        sound: (samples,) whether they are sound; nothing else counts otherwise.
        digests: (samples, 2) of their values.
        signatures: (samples, ...) of them.
        at_shots: (samples, shots) velocity at the shots, m/s: read off the gathers (NaN where they do not tell), or in
            the map.
    """

    def __init__(self, samples: int, signature: tuple[int, ...], shots: int) -> None:
        self.sound = np.zeros(samples, bool)
        self.digests = np.zeros((samples, 2), np.uint64)
        self.signatures = np.zeros((samples, *signature), np.float32)
        self.at_shots = np.full((samples, shots), np.nan, np.float32)

    def put(
        self,
        sample: int,
        digest: NDArray[np.uint64],
        signature: NDArray[np.float32],
        at_shots: NDArray[np.float32],
    ) -> None:
        """Keep those of a sample."""
        self.sound[sample] = True
        self.digests[sample], self.signatures[sample], self.at_shots[sample] = digest, signature, at_shots

    @property
    def samples(self) -> NDArray[np.int64]:
        """Numbers of the sound ones."""
        return np.flatnonzero(self.sound)


class Scan:
    """What a pass through the files has found.

    Attributes:
        parts: The files.
        survey: The survey.
        root: Folder that names of files are relative to.
        families: By name, in the order of their names.
        places: (samples, 2) index of the part, and row in it, of each sample.
        gathers: What is kept of them.
        velocity: What is kept of the maps.
        problems: What is wrong with single samples.
        maps: Open files.
    """

    def __init__(self, parts: Sequence[Part], survey: Survey, root: Path, places: NDArray[np.int64]) -> None:
        self.parts, self.survey, self.root, self.places = parts, survey, root, places
        self.families = {name: Family(name, survey) for name in sorted({part.family for part in parts})}
        self.gathers = Stack(len(places), gathers_shape(survey.gathers_shape), survey.shots)
        self.velocity = Stack(len(places), velocity_shape(survey.grid), survey.shots)
        self.problems: list[Problem] = []
        self.maps = Maps()

    def part(self, sample: int) -> tuple[Part, int]:
        """The part and the row of a sample."""
        index, row = self.places[sample].tolist()
        return self.parts[index], row

    def file(self, sample: int, velocity: bool = False) -> tuple[str, int]:
        """The file that a sample's gathers, or its map, lie in, as people know it; and its row there."""
        part, row = self.part(sample)
        path = part.velocity if velocity and part.velocity else part.gathers
        return relative(path, self.root), row

    def read_gathers(self, sample: int) -> NDArray[np.float32]:
        """The gathers of a sample, (shots, time, receivers)."""
        return raw_gathers(*self.part(sample), self.maps)

    def read_velocity(self, sample: int) -> NDArray[np.float32]:
        """The map of a sample, (depth, width) m/s."""
        return raw_velocity(*self.part(sample), self.maps)[0]


def relative(path: Path, root: Path) -> str:
    """The path of a file as people know it: without the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) and path != root else path.name


def scan(
    parts: Sequence[Part],
    survey: Survey,
    root: Path,
    most: int | None,
    spectra: int,
    advance: Callable[[int], None],
) -> Scan:
    """Read the samples, once each and one at a time: memory does not grow with the files.

    Args:
        parts: The files.
        survey: The survey.
        root: Folder that names of files are relative to.
        most: Samples of each family to read, spread evenly over its files. None: all.
        spectra: Samples of each family whose spectrum is taken, spread evenly too.
        advance: Called with 1 after each sample.

    Returns:
        What was found.
    """
    rows = _spread(parts, most)
    places = np.array([(index, row) for index, part in enumerate(rows) for row in part], np.int64).reshape(-1, 2)
    found = Scan(parts, survey, root, places)
    measured = _spread(parts, spectra if most is None else min(spectra, most))
    for part in parts:
        family = found.families[part.family]
        family.files += 1
        family.samples += part.samples
    for sample, (index, row) in enumerate(places.tolist()):
        part = parts[index]
        try:
            _read(found, sample, part, row, spectrum=row in measured[index])
        except UserError as error:  # the file has gone or changed since it was found
            found.problems.append(Problem("unreadable", f"{error}", relative(part.gathers, root), row, part.family))
        advance(1)
    return found


def count(parts: Sequence[Part], most: int | None) -> int:
    """Samples that `scan` would read."""
    return sum(map(len, _spread(parts, most)))


def _spread(parts: Sequence[Part], most: int | None) -> list[range | list[int]]:
    """Rows of each part: all, or `most` of each family, spread evenly over its parts laid end to end."""
    rows: list[range | list[int]] = [range(part.samples) for part in parts]
    if most is None:
        return rows
    for family in {part.family for part in parts}:
        members = [index for index, part in enumerate(parts) if part.family == family]
        ends = np.cumsum([parts[index].samples for index in members])
        taken = np.unique(np.linspace(0, ends[-1] - 1, min(most, ends[-1])).round().astype(np.int64))
        for index, end in zip(members, ends.tolist(), strict=True):
            begin = end - parts[index].samples
            rows[index] = (taken[(taken >= begin) & (taken < end)] - begin).tolist()
    return rows


def _read(found: Scan, sample: int, part: Part, row: int, spectrum: bool) -> None:
    """Take in a sample."""
    family = found.families[part.family]
    family.read += 1
    with np.errstate(invalid="ignore", over="ignore"):  # what is wrong is told in words
        gathers = raw_gathers(part, row, found.maps)
        signature, squares = gathers_signature(gathers)
    fault = _fault_of_gathers(gathers, squares)
    if fault:
        found.problems.append(Problem(*fault, relative(part.gathers, found.root), row, part.family))
    else:
        family.add_gathers(gathers, squares, spectrum)
        # Only the first two time samples are looked at.
        told = source_velocity(torch.from_numpy(gathers[None, :, :2]), found.survey)[0].numpy()
        found.gathers.put(sample, digest(gathers), signature, told)
    velocity = None
    if part.velocity is not None:
        velocity = raw_velocity(part, row, found.maps)[0]
        wrong = _fault_of_velocity(velocity)
        if wrong:
            found.problems.append(Problem(*wrong, relative(part.velocity, found.root), row, part.family))
        else:
            family.add_velocity(velocity)
            there = velocity[found.survey.shot_row, list(found.survey.shot_columns)]
            found.velocity.put(sample, digest(velocity), velocity_signature(velocity), there)
        fault = fault or wrong
    if family.example is None and not fault:
        family.example = Example(f"{part.name}.npy, row {row}", gathers, velocity)


def _fault_of_gathers(gathers: NDArray[np.float32], squares: float) -> tuple[str, str] | None:
    """Kind and sentence of what is wrong with gathers of these values."""
    # A sum of squares may overflow, a NaN or an infinite value always shows in it.
    if not np.isfinite(squares) and not np.isfinite(gathers).all():
        return (
            "not finite",
            f"gathers hold values that are not finite ({not_finite(gathers)}): mend or remove the sample.",
        )
    flat = gathers.reshape(len(gathers), -1)
    silent = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
    if not len(silent):
        return None
    if len(silent) == len(gathers):
        what = (
            f"gathers hold {flat[0, 0] + 0:g} and nothing else"
            if len(set(flat[:, 0])) == 1
            else "every gather is constant"
        )
    else:
        what = f"the gather{'s' if len(silent) > 1 else ''} of shot {', '.join(map(str, silent))} (counted from 0) "
        what += f"hold{'' if len(silent) > 1 else 's'} {flat[silent[0], 0] + 0:g} and nothing else"
    return "constant", f"{what}: nothing was recorded, remove the sample."


def _fault_of_velocity(velocity: NDArray[np.float32]) -> tuple[str, str] | None:
    """Kind and sentence of what is wrong with a map of these values."""
    if not np.isfinite(velocity).all():
        return (
            "not finite",
            f"the map holds values that are not finite ({not_finite(velocity)}): mend or remove the sample.",
        )
    least, most = float(velocity.min()), float(velocity.max())
    if least < PLAUSIBLE[0] or most > PLAUSIBLE[1]:
        return "out of range", f"velocities from {least:g} to {most:g}, {_guess(least, most)}."
    if least == most:
        return (
            "constant",
            f"the map holds {least:g} m/s and nothing else: there is nothing to learn, remove the sample.",
        )
    return None


def _guess(least: float, most: float) -> str:
    """What velocities out of range may be."""
    wanted = f"where m/s from {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} are expected"
    if least * 1000 >= PLAUSIBLE[0] and most * 1000 <= PLAUSIBLE[1]:
        return f"{wanted}: they look like km/s, multiply by 1000"
    if least >= -1 and most <= 1:
        return f"{wanted}: they look scaled to [-1, 1], scale them back"
    return f"{wanted}: mend or remove the sample"
