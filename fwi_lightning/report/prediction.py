"""The report of predict.py: `report.html` beside the predicted maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.figures.histograms import VELOCITY_EDGES, Spread, histograms
from fwi_lightning.inversion.quality import rank_correlation
from fwi_lightning.report.example import Example
from fwi_lightning.report.page import Block, Headline, Section, draw, write_page
from fwi_lightning.report.run import draw_example, environment_table
from fwi_lightning.report.tables import records_table
from fwi_lightning.survey import OPENFWI, Survey

LISTED = 20
"""Samples listed in a table of the page; the CSV files hold all."""

DRAWN = 12
"""Samples drawn at most, so that a page stays small."""


LEAST_SPREAD = 20
"""Fewest misfits that make a histogram."""


@dataclass(frozen=True)
class PredictionReport:
    """All that the report of a prediction tells.

    Attributes:
        checkpoint: Which model predicted.
        files: Number of input files.
        quality: Rows of quality.csv, one per sample: name, index, misfit (None if not simulated), flags; expected_mae,
            family and family_probability of a model with such heads; whatever more there is.
        velocity_counts: Cells per bin of `figures.histograms.VELOCITY_EDGES`, summed over all samples by
            `count_velocities`.
        examples: Samples to draw, the caller's choice; the first 12 are.
        scores: Rows of scores.csv: name, index, mae, rmse, ssim, boundary_iou. Default none: no truth given.
        environment: Name -> value: versions, device, seconds. Default empty.
        survey: The acquisition. Default `OPENFWI`.
    """

    checkpoint: str
    files: int
    quality: Sequence[Mapping[str, Any]]
    velocity_counts: NDArray[np.integer]
    examples: Sequence[Example] = ()
    scores: Sequence[Mapping[str, Any]] = ()
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
        Section("Scores against the truth", _scores(report)),
        Section("Quality", _quality(report)),
        Section("Samples", _samples(report)),
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
        remark = f"of {len(misfits):,} simulated predictions" if len(misfits) < samples else "of the predictions"
        headlines.append(Headline("median misfit", f"{np.median(misfits):.3g}", remark))
    expected = _values(report.quality, "expected_mae")
    if len(expected):
        correlation = rank_correlation(report.quality, report.scores)
        remark = "by the model itself"
        if correlation is not None:
            remark = f"rank correlation with the true MAE {correlation:.2f}"
        headlines.append(Headline("expected MAE", f"{expected.mean():.1f} m/s", remark))
    errors = _values(report.scores, "mae")
    if len(errors):
        headlines.insert(0, Headline("MAE", f"{errors.mean():.1f} m/s", f"over {len(errors):,} true maps"))
    return tuple(headlines)


def _scores(report: PredictionReport) -> list[Block]:
    """The mean of every score, then the samples with the largest errors."""
    if not report.scores:
        return []
    names = ("mae", "rmse", "ssim", "boundary_iou")
    means = {name: float(values.mean()) for name in names if len(values := _values(report.scores, name))}
    worst = sorted(report.scores, key=lambda row: -row["mae"])
    return [
        "Means over all samples:",
        records_table([means]),
        *_listing(worst, "The largest errors first", "scores.csv"),
    ]


def _quality(report: PredictionReport) -> list[Block]:
    """How velocities and misfits are spread, then the samples that fit worst."""
    spreads = [Spread(report.velocity_counts, VELOCITY_EDGES, "predicted velocity (m/s)", "cells")]
    caption = "Predicted velocities of all samples."
    misfits = _values(report.quality, "misfit")
    if len(misfits) >= LEAST_SPREAD:
        counts, edges = np.histogram(misfits, bins=min(40, max(8, len(misfits) // 5)))
        spreads.append(Spread(counts, edges, "misfit"))
        caption += " Misfit between recorded gathers and those simulated from the prediction: small is good."
    blocks: list[Block] = [draw(histograms(*spreads), caption)]
    # flagged samples come first, then the largest misfit; a missing one sorts last
    order = sorted(report.quality, key=lambda row: (not row.get("flags"), -_number(row.get("misfit"), -1.0)))
    return blocks + _listing(order, "Flagged samples and the largest misfits first", "quality.csv")


def _samples(report: PredictionReport) -> list[Block]:
    return [
        draw_example(
            example,
            example.survey or report.survey,
            f"{example.title}: gathers, velocity, profiles down the dashed columns; red triangles are shots.",
        )
        for example in report.examples[:DRAWN]
    ]


def _listing(rows: Sequence[Mapping[str, Any]], order: str, file: str) -> list[Block]:
    """The first rows as a table, and where the others are."""
    shown = records_table(rows[:LISTED])
    if len(rows) <= LISTED:
        return [f"{order}:", shown]
    return [f"{order}; {LISTED} of {len(rows):,} are listed here, {file} holds all:", shown]


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """The finite values of one column."""
    values = np.array([_number(row.get(name), math.nan) for row in rows], dtype=float)
    return values[np.isfinite(values)]


def _number(value: Any, otherwise: float) -> float:
    """A number, or something else where the cell is blank or not finite."""
    return float(value) if value is not None and value != "" and math.isfinite(value) else otherwise
