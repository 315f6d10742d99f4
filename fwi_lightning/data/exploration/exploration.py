"""Looking at a data set whole: what is in it, what is wrong with it, whether gathers and velocity belong together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data import folds
from fwi_lightning.data.exploration.belonging import Comparison, compare, compare_with_survey, summarise
from fwi_lightning.data.exploration.duplicates import gathers_twins, report_twins, velocity_twins
from fwi_lightning.data.exploration.families import Family
from fwi_lightning.data.exploration.problems import Problem
from fwi_lightning.data.exploration.scan import Scan, count, relative, scan
from fwi_lightning.data.files import MissingPartnerError, Part, family_of, find_parts
from fwi_lightning.data.npy import read_header
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.survey import OPENFWI, Survey


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        scan: Samples of each family that are read, spread evenly. Default None: all.
        max_samples: Samples of each family whose spectrum is taken. Default 50.
        simulate_per_family: Samples of each family that are simulated, besides suspected ones; 0: none. Default 2.
        folds: Folds that a training would make, for copies across them. Default 5.
        seed: Seed of the folds. Default 0.
        near_velocity: rms difference up to which two maps are near-duplicates, m/s. Default 10.
        near_gathers: The same of gathers, relative, once they are scaled to the same loudness. Default 0.01.

    Raises:
        UserError: If a number is out of range.
    """

    scan: int | None = None
    max_samples: int = 50
    simulate_per_family: int = 2
    folds: int = 5
    seed: int = 0
    near_velocity: float = 10.0
    near_gathers: float = 0.01

    def __post_init__(self) -> None:
        counts = {"scan": 1, "max_samples": 1, "simulate_per_family": 0, "folds": 2, "seed": 0}
        for name, least in {**counts, "near_velocity": 0, "near_gathers": 0}.items():
            value = getattr(self, name)
            kind, words = (int, "a whole number") if name in counts else (int | float, "a number")
            if not ((isinstance(value, kind) and value >= least) or (name == "scan" and value is None)):
                raise UserError(f"{name} must be {words}, at least {least}, got {value}.")


@dataclass(frozen=True)
class Exploration:
    """What was found.

    Attributes:
        root: The data set.
        survey: The survey.
        effort: How much was looked at.
        files: A row for each kind of file: holds (gathers or velocity), type, shape, order, files, families.
        families: In the order of their names.
        comparisons: Samples that were simulated.
        problems: What is wrong.
        remarks: Sentences on what is unusual, but not wrong.
    """

    root: Path
    survey: Survey
    effort: Effort
    files: list[dict[str, Any]]
    families: list[Family]
    comparisons: list[Comparison]
    problems: list[Problem]
    remarks: list[str]

    def family_rows(self) -> list[dict[str, Any]]:
        """A row for each family, numbers in m/s and Hz, None where there is none: the columns of families.csv."""
        wrong = Counter(problem.family for problem in self.problems)
        rows = []
        for family in self.families:
            simulated, rms = summarise(self.comparisons, family.name)
            numbers = {
                "family": family.name,
                "files": family.files,
                "samples": family.samples,
                "read": family.read,
                "velocity_min": family.velocity.least,
                "velocity_max": family.velocity.most,
                "velocity_mean": family.velocity.mean,
                "velocity_std": family.velocity.std,
                "boundary_density": float(family.boundary_density.mean()) if family.maps else None,
                "gathers_min": family.gathers.least,
                "gathers_max": family.gathers.most,
                "gathers_mean": family.gathers.mean,
                "gathers_std": family.gathers.std,
                "peak_frequency": family.peak_frequency,
                "last_sample_zero": family.last_sample_zero,
                "simulated": simulated,
                "largest_rms": rms,
                "problems": wrong[family.name],
                "known": family.known,
            }
            rows.append({name: None if value != value else value for name, value in numbers.items()})
        return rows


def explore(root: str | Path, survey: Survey = OPENFWI, effort: Effort | None = None) -> Exploration:
    """Look at every file and every sample of a data set; what is wrong is listed and the rest still looked at.

    Args:
        root: Folder or file, as `find_parts` takes it.
        survey: The survey that recorded it. Default OPENFWI.
        effort: How much to look at. Default `Effort()`.

    Returns:
        What was found.

    Raises:
        UserError: If the root does not exist or holds no file of gathers that can be read.
    """
    effort = effort or Effort()
    parts, root, problems, remarks = _find(root, survey)
    with Progress("reading", 0, count(parts, effort.scan)) as progress:
        found = scan(parts, survey, root, effort.scan, effort.max_samples, progress.advance)
    problems += found.problems
    fold_of, sentences = _folds(found, effort)
    remarks += sentences if any(part.velocity for part in parts) else []  # nothing to train on without labels
    problems += compare_with_survey(found)
    problems += _copies(found, effort, fold_of)
    comparisons, wrong = compare(found, effort.simulate_per_family)
    problems += wrong
    families = list(found.families.values())
    return Exploration(
        root=root,
        survey=survey,
        effort=effort,
        files=_kinds_of_files(parts),
        families=families,
        comparisons=comparisons,
        problems=sorted(problems, key=lambda problem: problem.order),
        remarks=remarks + _remarks(families, effort),
    )


def _find(root: str | Path, survey: Survey) -> tuple[list[Part], Path, list[Problem], list[str]]:
    """The parts that can be read, the root, and what is wrong with the other files."""
    unusable: list[tuple[Path, UserError]] = []
    parts = find_parts(root, survey=survey, on_unusable=lambda path, error: unusable.append((path, error)))
    root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100  # as find_parts names files
    if not parts:
        raise UserError(f"{root} holds no file of gathers that can be read; the first one: {unusable[0][1]}")
    alone = [error for _, error in unusable if isinstance(error, MissingPartnerError)]
    if len(alone) == len(parts) and not any(part.velocity for part in parts):
        unusable = [(path, error) for path, error in unusable if error not in alone]
        remarks = ["There are no velocity files: gathers alone were looked at."]
    else:
        remarks = []
    problems = []
    for path, error in unusable:
        kind = "no partner" if isinstance(error, MissingPartnerError) else "unreadable"
        sentence = str(error).removeprefix(f"{path} ").replace(f"{root}/", "")
        problems.append(Problem(kind, sentence, relative(path, root), family=family_of(path, root)))
    return parts, root, problems, remarks


def _folds(found: Scan, effort: Effort) -> tuple[NDArray[np.int64], list[str]]:
    """The fold of each sample of the scan, -1 in families too small for folds; and a remark on each of these."""
    sizes = Counter[str]()
    for part in found.parts:
        sizes[part.family] += part.samples
    small = {family: size for family, size in sizes.items() if size < effort.folds}
    numbers = [index for index, part in enumerate(found.parts) if part.family not in small]
    table = [np.full(part.samples, -1) for part in found.parts]
    folds.log.disabled = True  # the remarks say it
    try:
        blocks = folds.assign_folds([found.parts[index] for index in numbers], effort.folds, effort.seed)
    finally:
        folds.log.disabled = False
    for block in blocks:
        table[numbers[block.part]][block.start : block.stop] = block.fold
    remarks = [
        f"{family} has {size} sample{'s' if size > 1 else ''}, fewer than folds={effort.folds}: a training would "
        "refuse it; add data of it, leave it out, or set fewer folds."
        for family, size in small.items()
    ]
    return np.array([table[index][row] for index, row in found.places.tolist()], np.int64), remarks


def _copies(found: Scan, effort: Effort, fold_of: NDArray[np.int64]) -> list[Problem]:
    maps = report_twins(found, velocity_twins(found, effort.near_velocity), fold_of, velocity=True)
    return maps + report_twins(found, gathers_twins(found, effort.near_gathers), fold_of, velocity=False)


def _kinds_of_files(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """A row for each combination of content, type, shape and order."""
    kinds: dict[tuple[str, ...], tuple[list[Path], set[str]]] = {}
    for part in parts:
        for holds, path in (("gathers", part.gathers), ("velocity", part.velocity)):
            if path is not None:
                header = read_header(path)
                key = (holds, str(header.dtype), str(header.shape), "Fortran" if header.fortran else "C")
                files, families = kinds.setdefault(key, ([], set()))
                files.append(path)
                families.add(part.family)
    names = ("holds", "type", "shape", "order")
    return [
        dict(zip(names, key, strict=True)) | {"files": len(files), "families": len(families)}
        for key, (files, families) in sorted(kinds.items())
    ]


def _remarks(families: Sequence[Family], effort: Effort) -> list[str]:
    """What is unusual, but not wrong."""
    remarks = []
    unknown = [family.name for family in families if not family.known]
    if unknown:
        remarks.append(
            f"{_listed(unknown)}: none of the ten families of OpenFWI. That works everywhere but where maps of a "
            "family are drawn (geology, data=synthetic, data=fresh)."
        )
    few = [family.name for family in families if family.maps and family.files < effort.folds <= family.samples]
    if few:
        remarks.append(
            f"{_listed(few)}: fewer files than folds={effort.folds}, so a training divides their files into contiguous "
            "blocks."
        )
    quirk = [family for family in families if family.last_sample_zero]
    for family in quirk:
        remarks.append(
            f"{family.name}: the last time sample is stored as zeros in {family.last_sample_zero:,} of "
            f"{family.heard:,} samples. Every misfit here leaves it out."
        )
    if effort.scan is not None and any(family.read < family.samples for family in families):
        read, samples = (sum(getattr(family, name) for family in families) for name in ("read", "samples"))
        remarks.append(f"scan={effort.scan}: {read:,} of {samples:,} samples were read.")
    return remarks


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
