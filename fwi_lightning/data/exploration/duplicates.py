"""Samples that are there twice: the same values, almost the same, or left and right exchanged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fwi_lightning.data.exploration.problems import Problem
from fwi_lightning.data.exploration.scan import Scan, Stack

NEIGHBOURS = 16
"""Samples with the nearest signatures that each is compared with: time and memory are bounded, whatever the data."""

CHUNK = 4096
"""Signatures looked up at a time."""


@dataclass(frozen=True)
class Twin:
    """A sample that was there before.

    Attributes:
        later: Number of the sample.
        earlier: Number of the one it is a copy of.
        mirrored: Whether left and right are exchanged.
        distance: Between the two, after exchanging.
        identical: Whether all values are the same.
    """

    later: int
    earlier: int
    mirrored: bool
    distance: float
    identical: bool


def find_twins(
    digests: NDArray[np.uint64],
    signatures: NDArray[np.float32],
    mirrored: NDArray[np.float32],
    radius: float,
    distance: Callable[[int, int, bool], float],
) -> list[Twin]:
    """Find the samples that are copies of earlier ones.

    Equal digests are equal samples. For the others a tree over the signatures gives the nearest few within the radius,
    in a time that grows hardly faster than the number of samples; these are compared in full.

    Args:
        digests: (samples, 2) of each sample.
        signatures: (samples, numbers); the distance of two is at most that of their samples.
        mirrored: (samples, numbers), signatures of the mirror images.
        radius: Distance up to which two samples count as copies.
        distance: Of two samples, by their numbers, the second one mirrored or not.

    Returns:
        For each copy its nearest original, in the order of the copies.
    """
    _, first, which = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    numbers = np.sort(first)
    originals = first[which.reshape(-1)]
    copies = np.flatnonzero(originals != np.arange(len(digests)))
    twins = [
        Twin(copy, original, False, 0.0, True)
        for copy, original in zip(copies.tolist(), originals[copies].tolist(), strict=True)
    ]
    nearest: dict[int, Twin] = {}
    for mirror, questions in ((False, signatures), (True, mirrored)):
        for pair in _near(signatures[numbers], questions[numbers], radius):
            later, earlier = numbers[list(pair)].tolist()
            before = nearest.get(later)
            if before and not before.mirrored and mirror:
                continue  # what is its own mirror image is a plain copy
            apart = distance(later, earlier, mirror)
            if apart <= radius and (before is None or apart < before.distance):
                nearest[later] = Twin(later, earlier, mirror, apart, False)
    return sorted([*twins, *nearest.values()], key=lambda twin: twin.later)


def _near(signatures: NDArray[np.float32], questions: NDArray[np.float32], radius: float) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) whose signatures, one of each kind, are within the radius; each pair once."""
    tree = cKDTree(signatures)
    reach = radius * 1.001 + 1e-6 * float(np.abs(signatures).max(initial=0.0))  # float32 rounds
    ranks = np.arange(1, min(NEIGHBOURS, len(signatures)) + 1)
    seen = set()
    for start in range(0, len(questions), CHUNK):
        _, found = tree.query(questions[start : start + CHUNK], k=ranks, distance_upper_bound=reach)
        asked, rank = np.nonzero(found < len(signatures))
        for one, other in zip((asked + start).tolist(), found[asked, rank].tolist(), strict=True):
            pair = max(one, other), min(one, other)
            if one != other and pair not in seen:
                seen.add(pair)
                yield pair


def velocity_twins(scan: Scan, radius: float) -> list[Twin]:
    """Maps that are there twice.

    Args:
        scan: The samples.
        radius: rms difference up to which two maps are near-duplicates, m/s.

    Returns:
        Twins by number of the sample in the scan.
    """

    def distance(later: int, earlier: int, mirrored: bool) -> float:
        one, other = scan.read_velocity(later), scan.read_velocity(earlier)
        return float(np.sqrt(np.mean((one - (other[:, ::-1] if mirrored else other)) ** 2)))

    return _twins(scan.velocity, np.s_[:, :, ::-1], radius, distance)


def gathers_twins(scan: Scan, radius: float) -> list[Twin]:
    """Gathers that are there twice, whatever their loudness.

    Args:
        scan: The samples.
        radius: Difference up to which two are near-duplicates, relative, when both are scaled to norm 1.

    Returns:
        Twins by number of the sample in the scan.
    """

    def distance(later: int, earlier: int, mirrored: bool) -> float:
        one, other = scan.read_gathers(later), scan.read_gathers(earlier)
        other = other[::-1, :, ::-1] if mirrored else other
        return float(np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other)))

    return _twins(scan.gathers, np.s_[:, ::-1, :, ::-1], radius, distance)


def _twins(
    stack: Stack, mirror: tuple[slice, ...], radius: float, distance: Callable[[int, int, bool], float]
) -> list[Twin]:
    """The twins among the sound ones, by their numbers in the scan."""
    samples = stack.samples
    signatures = stack.signatures[samples]
    shape = len(samples), math.prod(signatures.shape[1:])
    flat, mirrored = signatures.reshape(shape), signatures[mirror].reshape(shape)

    def apart(later: int, earlier: int, reverse: bool) -> float:
        return distance(int(samples[later]), int(samples[earlier]), reverse)

    return [
        dataclasses.replace(twin, later=int(samples[twin.later]), earlier=int(samples[twin.earlier]))
        for twin in find_twins(stack.digests[samples], flat, mirrored, radius, apart)
    ]


def report_twins(scan: Scan, twins: Sequence[Twin], folds: NDArray[np.int64], velocity: bool) -> list[Problem]:
    """Say of every copy what it is a copy of, and whether the two lie in different folds.

    Args:
        scan: The samples.
        twins: What was found.
        folds: (samples,) fold of each sample of the scan, -1 where there is none.
        velocity: Whether they are twins of maps, or of gathers.

    Returns:
        A problem for each.
    """
    problems = []
    for twin in twins:
        file, row = scan.file(twin.later, velocity)
        other_file, other_row = scan.file(twin.earlier, velocity)
        fold, other_fold = int(folds[twin.later]), int(folds[twin.earlier])
        across = fold != other_fold and min(fold, other_fold) >= 0
        kind = "mirror image" if twin.mirrored else "duplicate" if twin.identical else "near-duplicate"
        problems.append(
            Problem(
                kind,
                f"{_likeness(twin, velocity)} {other_file}, row {other_row}; "
                + (
                    f"they lie in folds {fold} and {other_fold}, which makes the validation look too good: "
                    "remove one of the two."
                    if across
                    else "remove one of the two."
                ),
                file,
                row,
                scan.part(twin.later)[0].family,
                other_file,
                other_row,
                across,
            )
        )
    return problems


def _likeness(twin: Twin, velocity: bool) -> str:
    what, verb = ("the map", "is") if velocity else ("gathers", "are")
    apart = f"{twin.distance:.2g} m/s" if velocity else f"{100 * twin.distance:.2g} %"
    if twin.mirrored:
        exact = "" if twin.distance == 0 else f", but for {apart} rms,"
        return f"{what} {verb}{exact} the mirror image of {'that' if velocity else 'those'} in"
    if twin.identical:
        return f"{what} {verb} the same as in"
    return f"{what} differ{'s' if velocity else ''} by {apart} rms only from {'that' if velocity else 'those'} in"
