"""The report of predict.py: `report.html` beside the predicted maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.figures.answer import Answered, answer
from fwi_lightning.figures.histograms import VELOCITY_EDGES, Spread, histograms
from fwi_lightning.inversion.quality import rank_correlation
from fwi_lightning.report.example import Example
from fwi_lightning.report.page import Block, Headline, Section, draw, write_page
from fwi_lightning.report.run import environment_table
from fwi_lightning.report.tables import records_table
from fwi_lightning.survey import OPENFWI, Survey

LISTED = 20
"""Samples listed in a table of the page; the CSV files hold all."""

DRAWN = 12
"""Samples drawn at most, so that a page stays small."""

LEAST_SPREAD = 20
"""Fewest misfits that make a histogram."""

COLUMNS = ("name", "index", "misfit", "expected_mae", "family", "family_probability", "inconsistency", "seam", "flags")
"""Columns of quality.csv that the page lists."""

SCORES = ("mae", "rmse", "ssim", "boundary_iou")


@dataclass(frozen=True)
class PredictionReport:
    """All that the report of a prediction tells.

    Attributes:
        checkpoint: Which model predicted.
        files: Number of input files.
        quality: Rows of quality.csv, one per sample: name, index, misfit (None if not simulated), flags; expected_mae,
            family and family_probability where known; misfit_STEP and seconds_STEP of the steps after the network;
            whatever more there is.
        velocity_counts: Cells per bin of `figures.histograms.VELOCITY_EDGES`, summed over all samples by
            `count_velocities`.
        examples: Samples to draw, the caller's choice; the first 12 are.
        scores: Rows of scores.csv: name, index, mae, rmse, ssim, boundary_iou. Default none: no truth given.
        families: Family of each row of quality as the data's folders name it, "" where they do not. Default: unknown.
        environment: Name -> value: versions, device, seconds. Default empty.
        survey: The acquisition. Default `OPENFWI`.
    """

    checkpoint: str
    files: int
    quality: Sequence[Mapping[str, Any]]
    velocity_counts: NDArray[np.integer]
    examples: Sequence[Example] = ()
    scores: Sequence[Mapping[str, Any]] = ()
    families: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    survey: Survey = OPENFWI


def write_prediction_report(folder: Path, report: PredictionReport) -> Path:
    """Write `folder/report.html`.

    Args:
        folder: The output folder of predict.py.
        report: What to tell; five samples do as well as 65,818.

    Returns:
        The path of the page.

    Raises:
        UserError: If the folder cannot be written.
    """
    sections = [
        Section("", [_headlines(report)]),
        Section("Flags", _flags(report)),
        Section("What each step changed", _steps(report)),
        Section("Families", _families(report)),
        Section("Samples", _samples(report)),
        Section("Scores against the truth", _scores(report)),
        Section("Quality", _quality(report)),
        Section("The prediction", [environment_table({"checkpoint": report.checkpoint, **report.environment})]),
    ]
    path = folder / "report.html"
    title = f"Velocity of {len(report.quality):,} sample{'s' if len(report.quality) != 1 else ''}"
    write_page(path, title, [section for section in sections if section.blocks])
    return path


def _headlines(report: PredictionReport) -> tuple[Headline, ...]:
    flagged = sum(bool(row.get("flags")) for row in report.quality)
    samples = len(report.quality)
    headlines = [
        Headline("samples", f"{samples:,}", f"in {report.files:,} file{'s' if report.files != 1 else ''}"),
        Headline("flagged", f"{flagged:,}", "samples that deserve a look" if flagged else "none stands out"),
    ]
    misfits = _values(report.quality, "misfit")
    if len(misfits):
        remark = "of the record's rms is not explained" if len(misfits) == samples else f"of {len(misfits):,} simulated"
        headlines.append(Headline("median misfit", f"{np.median(misfits):.3g}", remark))
    expected = _values(report.quality, "expected_mae")
    if len(expected):
        correlation = rank_correlation(report.quality, report.scores)
        calibrated = any(row.get("expected_mae_of") for row in report.quality)
        remark = "told without labels, calibrated on validation data" if calibrated else "by the model itself"
        if correlation is not None:
            remark = f"rank correlation with the true MAE {correlation:.2f}"
        headlines.append(Headline("expected MAE", f"{expected.mean():.1f} m/s", remark))
    errors = _values(report.scores, "mae")
    if len(errors):
        headlines.insert(0, Headline("MAE", f"{errors.mean():.1f} m/s", f"over {len(errors):,} true maps"))
    return tuple(headlines)


def _flags(report: PredictionReport) -> list[Block]:
    """How many samples have which flag."""
    counts: dict[str, int] = {}
    for row in report.quality:
        for flag in filter(None, str(row.get("flags") or "").split(";")):
            counts[flag] = counts.get(flag, 0) + 1
    rows = [{"flag": flag, "samples": count} for flag, count in sorted(counts.items(), key=lambda item: -item[1])]
    return [records_table(rows)] if rows else []


def _steps(report: PredictionReport) -> list[Block]:
    """Misfit after each step, how many samples it helped, and what it took."""
    rows: list[dict[str, Any]] = []
    before = np.full(len(report.quality), math.nan)
    for name in _steps_of(report.quality):
        misfit = _column(report.quality, f"misfit_{name}")
        seconds = _values(report.quality, f"seconds_{name}")
        known = np.isfinite(misfit) & np.isfinite(before)
        line: dict[str, Any] = {"after": name.replace("_", " ")}
        line["median_misfit"] = float(np.nanmedian(misfit)) if np.isfinite(misfit).any() else None
        imperfect = known & (before > 0)
        change = misfit[imperfect] / before[imperfect] - 1
        line["mean_change"] = 100 * float(np.mean(change)) if imperfect.any() else None
        line["improved"] = 100 * float(np.mean(misfit[known] < before[known])) if known.any() else None
        line["seconds_a_sample"] = float(seconds.mean()) if len(seconds) else None
        rows.append(line)
        before = np.where(np.isfinite(misfit), misfit, before)
    return [records_table(rows)] if len(rows) > 1 else []


def _steps_of(quality: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the steps that quality.csv tells of, in order."""
    names = dict.fromkeys(key for row in quality for key in row)
    found = [name.split("_", 1)[1] for name in names if name.startswith(("misfit_", "seconds_"))]
    found = [name for name in dict.fromkeys(found) if not name.startswith("shot_")]
    return sorted(found, key=lambda name: name not in ("network", "start"))


def _families(report: PredictionReport) -> list[Block]:
    """A row for each family: scores where there is a truth, what was expected, how the record is explained."""
    families = report.families or [str(row.get("family") or "") for row in report.quality]
    if len(set(families)) < 2:
        return []
    scores = {(row["name"], row["index"]): row for row in report.scores}
    rows = []
    for family in sorted(set(families), key=lambda name: (not name, name)):
        members = [row for row, name in zip(report.quality, families, strict=True) if name == family]
        true = [scores[place] for row in members if (place := (row["name"], row["index"])) in scores]
        line: dict[str, Any] = {"family": family or "unknown", "samples": len(members)}
        line |= {name: float(values.mean()) for name in SCORES if len(values := _values(true, name))}
        expected, misfits = _values(members, "expected_mae"), _values(members, "misfit")
        line |= {"expected_mae": float(expected.mean())} if len(expected) else {}
        line |= {"median_misfit": float(np.median(misfits))} if len(misfits) else {}
        rows.append(line | {"flagged": sum(bool(row.get("flags")) for row in members)})
    return [records_table(rows)]


def _scores(report: PredictionReport) -> list[Block]:
    """The mean of every score, then the samples with the largest errors."""
    if not report.scores:
        return []
    means = {name: float(values.mean()) for name in SCORES if len(values := _values(report.scores, name))}
    worst = sorted(report.scores, key=lambda row: -row["mae"])
    return [
        "Means over all samples:",
        records_table([means]),
        *_listing(worst, "The largest errors first", "scores.csv"),
    ]


def _quality(report: PredictionReport) -> list[Block]:
    """How velocities, misfits and expected errors are spread, then the samples that fit worst."""
    spreads = [Spread(report.velocity_counts, VELOCITY_EDGES, "predicted velocity (m/s)", "cells")]
    caption = "Predicted velocities of all samples."
    misfits = _values(report.quality, "misfit")
    if len(misfits) >= LEAST_SPREAD:
        spreads.append(_spread(misfits, "misfit"))
        caption += " Misfit between recorded gathers and those simulated from the prediction: small is good."
    expected = _values(report.quality, "expected_mae")
    if len(expected) >= LEAST_SPREAD:
        spreads.append(_spread(expected, "expected MAE (m/s)"))
        caption += " Expected MAE: told from the answers alone."
    blocks: list[Block] = [draw(histograms(*spreads), caption)]
    # Flagged samples come first, then the largest expected error or misfit; a missing one sorts last.
    by = "expected_mae" if len(expected) else "misfit"
    order = sorted(report.quality, key=lambda row: (not row.get("flags"), -_number(row.get(by), -1.0)))
    shown = [{name: row[name] for name in COLUMNS if name in row} for row in order]
    what = "the largest expected error" if len(expected) else "the largest misfits"
    return blocks + _listing(shown, f"Flagged samples and {what} first", "quality.csv")


def _spread(values: NDArray[np.float64], label: str) -> Spread:
    counts, edges = np.histogram(values, bins=min(40, max(8, len(values) // 5)))
    return Spread(counts, edges, label)


def _samples(report: PredictionReport) -> list[Block]:
    caption = (
        "Profiles go down the dashed columns; red triangles are shots. Recorded, simulated and difference share one "
        "scale of colours."
    )
    pictures: list[Block] = [
        draw(answer(_answered(example), example.survey or report.survey, example.title, example.facts), example.title)
        for example in report.examples[:DRAWN]
    ]
    return [caption, *pictures] if pictures else []


def _answered(example: Example) -> Answered:
    return Answered(
        example.gathers,
        example.prediction,
        before=example.before,
        truth=example.truth,
        uncertainty=example.uncertainty,
        record=example.record,
        history=example.history,
    )


def _listing(rows: Sequence[Mapping[str, Any]], order: str, file: str) -> list[Block]:
    """The first rows as a table, and where the others are."""
    shown = records_table(rows[:LISTED])
    if len(rows) <= LISTED:
        return [f"{order}:", shown]
    return [f"{order}; {LISTED} of {len(rows):,} are listed here, {file} holds all:", shown]


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """The finite values of one column."""
    values = _column(rows, name)
    return values[np.isfinite(values)]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """One column, NaN where it is blank."""
    return np.array([_number(row.get(name), math.nan) for row in rows], dtype=float)


def _number(value: Any, otherwise: float) -> float:
    """A number, or something else where the cell is blank or not finite."""
    return float(value) if value is not None and value != "" and math.isfinite(value) else otherwise
