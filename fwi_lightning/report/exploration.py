"""The report of `explore`: tables, `figures/*.png` and `report.html` in its folder."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fwi_lightning.data.exploration import KINDS, Exploration, Problem, group
from fwi_lightning.data.exploration.belonging import BELONGS
from fwi_lightning.data.exploration.families import Family
from fwi_lightning.figures.families import Profile, Shown, depth_profiles, samples, spectra
from fwi_lightning.figures.survey import acquisition
from fwi_lightning.geology.boundaries import BOUNDARY_JUMP
from fwi_lightning.report.page import Block, Headline, Picture, Section, draw, write_page
from fwi_lightning.report.tables import Table, records_table, write_csv

LISTED = 100
"""Lines of problems on the page; problems.csv holds all."""

COMPARED = 40
"""Simulated samples listed on the page; simulated.csv holds all."""

DRAWN = 20
"""Families drawn at most, so that a page stays small."""

PROBLEM_COLUMNS = ("problem", "family", "file", "row", "sentence", "other_file", "other_row", "across_folds")
COMPARISON_COLUMNS = ("family", "file", "row", "relative_rms", "suspected")


def write_exploration(folder: Path, found: Exploration) -> Path:
    """Write `families.csv`, `problems.csv`, `simulated.csv`, `figures/*.png` and `report.html`.

    Args:
        folder: Where to.
        found: What to tell.

    Returns:
        The path of the page.

    Raises:
        UserError: If the folder cannot be written.
    """
    write_csv(folder / "families.csv", found.family_rows())
    write_csv(folder / "problems.csv", map(_problem_row, found.problems), PROBLEM_COLUMNS)
    compared = [
        dict(zip(COMPARISON_COLUMNS, dataclasses.astuple(comparison), strict=True)) for comparison in found.comparisons
    ]
    write_csv(folder / "simulated.csv", compared, COMPARISON_COLUMNS)
    figures = folder / "figures"
    drawn = found.families[:DRAWN]
    sections = [
        Section("", [_headlines(found), *found.remarks]),
        Section("Problems", _problems(found)),
        Section("Families", ["Velocity:", _velocity_table(found), "Gathers:", _gathers_table(found)]),
        Section("Samples", _samples(drawn, figures)),
        Section("Velocity and boundaries along depth", _profiles(drawn, found, figures)),
        Section("Spectra", _spectra(drawn, found, figures)),
        Section("Gathers beside their velocity", _comparisons(found)),
        Section("The survey", [_survey(found, figures)]),
        Section("Files", [records_table(found.files)]),
        Section("How it was looked at", _method(found)),
    ]
    path = folder / "report.html"
    write_page(path, f"Exploration of {found.root.name}", [section for section in sections if section.blocks])
    return path


def family_table(found: Exploration) -> Table:
    """The families in a few columns, for the terminal."""
    forms = {
        "velocity_min": ".0f",
        "velocity_max": ".0f",
        "gathers_min": ".1f",
        "gathers_max": ".1f",
        "gathers_std": ".2f",
        "largest_rms": ".1g",
    }
    rows = [
        (
            row["family"],
            f"{row['samples']:,}",
            *(_number(row[name], form) for name, form in forms.items()),
            str(row["problems"]),
        )
        for row in found.family_rows()
    ]
    headings = ("family", "samples", "m/s min", "max", "gathers min", "max", "std", "misfit", "problems")
    return Table(headings, tuple(rows), "l" + "r" * 8)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _problem_row(problem: Problem) -> dict[str, Any]:
    """A row of problems.csv."""
    row = {"problem": problem.kind} | {name: getattr(problem, name) for name in PROBLEM_COLUMNS[1:]}
    return row if problem.other_file else row | {"across_folds": None}


def _headlines(found: Exploration) -> tuple[Headline, ...]:
    kinds = Counter(problem.kind for problem in found.problems)
    samples = sum(family.samples for family in found.families)
    read = sum(family.read for family in found.families)
    copies = sum(kinds[kind] for kind in ("duplicate", "near-duplicate", "mirror image"))
    across = sum(problem.across_folds for problem in found.problems)
    standing = [comparison.rms for comparison in found.comparisons if not comparison.suspected]
    misfit = Headline("misfit", "-", "nothing was simulated")
    if standing:
        remark = f"median of {len(standing)} samples that were simulated"
        misfit = Headline("misfit", f"{np.median(standing):.2g}", remark)
    return (
        Headline("problems", f"{len(found.problems):,}", "listed below" if found.problems else "none found"),
        Headline("samples", f"{samples:,}", "all were read" if read == samples else f"{read:,} of them were read"),
        Headline(
            "families", str(len(found.families)), f"{sum(family.known for family in found.families)} of OpenFWI's ten"
        ),
        Headline("copies", f"{copies:,}", f"{across:,} across folds" if copies else "none found"),
        misfit,
    )


def _problems(found: Exploration) -> list[Block]:
    """Problems of one kind in one file on a line."""
    groups = group(found.problems)
    if not groups:
        return ["None was found."]
    kinds = Counter(problem.kind for problem in found.problems)
    overview = Table(
        ("problem", "count", "what it is"),
        tuple((kind, f"{kinds[kind]:,}", what) for kind, what in KINDS.items() if kinds[kind]),
        "lrw",
    )
    lines = tuple((item.kind, item.place, f"{item.count:,}", item.sentence) for item in groups[:LISTED])
    listing = Table(("problem", "where", "count", "the first one"), lines, "lwrw")
    if len(groups) <= LISTED:
        return [overview, listing]
    return [overview, f"The first {LISTED} of {len(groups):,}; problems.csv lists every sample.", listing]


def _velocity_table(found: Exploration) -> Table:
    rows = []
    for row in found.family_rows():
        numbers = [_number(row[f"velocity_{name}"], ".1f") for name in ("min", "max", "mean", "std")]
        density = _number(row["boundary_density"], ".3f")
        rows.append(
            (row["family"], f"{row['files']:,}", f"{row['samples']:,}", *numbers, density, str(row["problems"]))
        )
    numbers = ["min (m/s)", "max (m/s)", "mean (m/s)", "std (m/s)"]
    return Table(("family", "files", "samples", *numbers, "boundary density", "problems"), tuple(rows), "lrrrrrrrr")


def _gathers_table(found: Exploration) -> Table:
    rows = []
    for row in found.family_rows():
        numbers = [_number(row[f"gathers_{name}"], ".4g") for name in ("min", "max", "mean", "std")]
        rows.append(
            (
                row["family"],
                *numbers,
                _number(row["peak_frequency"], ".1f"),
                f"{row['last_sample_zero']:,}",
                str(row["simulated"]),
                _number(row["largest_rms"], ".2g"),
            )
        )
    more = ("peak (Hz)", "last sample zero", "simulated", "largest rms")
    return Table(("family", "min", "max", "mean", "std", *more), tuple(rows), "lrrrrrrrr")


def _samples(families: Sequence[Family], figures: Path) -> list[Block]:
    shown = [
        Shown(family.name, family.example.gathers, family.example.velocity) for family in families if family.example
    ]
    if not shown:
        return []
    places = "; ".join(family.example.place for family in families if family.example)
    caption = f"The first sound sample of each family, and one of its gathers: {places}."
    return [draw(samples(shown, families[0].survey), caption, figures / "samples.png")]


def _profiles(families: Sequence[Family], found: Exploration, figures: Path) -> list[Block]:
    profiles = {family.name: Profile(*family.profile, family.boundary_density) for family in families if family.maps}
    if not profiles:
        return []
    caption = (
        "Mean velocity of each row and its standard deviation over all columns and maps of a family; and the share of "
        f"cells that differ by more than {BOUNDARY_JUMP:g} m/s from a neighbour."
    )
    return [draw(depth_profiles(profiles, found.survey), caption, figures / "profiles.png")]


def _spectra(families: Sequence[Family], found: Exploration, figures: Path) -> list[Block]:
    amplitudes = {family.name: family.spectrum for family in families if family.spectra}
    if not amplitudes:
        return []
    caption = (
        f"Mean amplitude spectrum of the traces of up to {found.effort.max_samples} samples of each family, relative "
        "to its peak. In two dimensions records peak a little below the wavelet."
    )
    return [draw(spectra(families[0].frequencies, amplitudes, found.survey), caption, figures / "spectra.png")]


def _comparisons(found: Exploration) -> list[Block]:
    if not found.comparisons:
        return []
    worst = sorted(found.comparisons, key=lambda comparison: -comparison.rms)
    rows = tuple(
        (item.family, item.file, str(item.row), f"{item.rms:.2g}", "suspected" if item.suspected else "")
        for item in worst[:COMPARED]
    )
    text = (
        "The velocity of a few samples of each family was simulated and compared with the gathers, and so was that of "
        "all whose gathers tell another velocity at the shots than their map has: rms difference relative to the "
        f"gathers, without the last time sample. Up to {BELONGS:g} the two belong together; what was simulated alike "
        "reaches 1e-5 or less, float16 5e-4, a shift by one sample 0.14."
    )
    more = [f"The {COMPARED} largest of {len(worst):,}; simulated.csv lists all."] if len(worst) > COMPARED else []
    return [text, *more, Table(("family", "file", "row", "relative rms", ""), rows, "llrrl")]


def _survey(found: Exploration, figures: Path) -> Picture:
    caption = (
        "The survey that the data were compared with (physics=): grid, shots and receivers; the wavelet; its spectrum."
    )
    return draw(acquisition(found.survey), caption, figures / "survey.png")


def _method(found: Exploration) -> list[Block]:
    effort = found.effort
    return [
        "Every sample that was read was checked for values that are not finite, constant gathers and maps, velocities "
        "out of range, and copies; and the velocity that its first two time samples tell at the shots was compared "
        "with its map.",
        f"Copies: two maps whose rms difference is at most {effort.near_velocity:g} m/s, two records that differ by at "
        f"most {100 * effort.near_gathers:g} % once they are equally loud, or either with left and right exchanged. "
        "They are found by signatures, block means of maps and block norms of gathers, whose distance is never larger "
        "than that of the samples, and then compared in full. Families of few parameters, such as FlatFault_A, may "
        "hold close maps by chance.",
        f"Folds: those of folds={effort.folds} and seed={effort.seed}, as train.py makes them.",
    ]
