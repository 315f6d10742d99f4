"""The report of an ensemble: tables, pictures and `report.html` in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fwi_lightning.figures.ensemble import gains, method_bars, reliability, weight_table
from fwi_lightning.inversion.ensemble.blender import BASELINES, PIXEL, SAMPLE, STATIC
from fwi_lightning.inversion.ensemble.comparison import Comparison
from fwi_lightning.report.page import Block, Headline, Section, draw, write_page
from fwi_lightning.report.tables import OVERALL, Table, cell, records_table, write_csv
from fwi_lightning.training.metrics import SCORES

NESTED = (
    "Every number is of samples that neither a member was trained on nor anything here was fitted on: members predict "
    "out of fold, and weights, heads and meta-learner are fitted in the other nested folds. Which method is kept was "
    "chosen by these numbers, so that of the kept one is a little too good; the file is then fitted on all samples."
)

LEAST = 3
"""Fewest samples of which a rank correlation says anything."""


@dataclass(frozen=True)
class EnsembleReport:
    """All that the report of an ensemble tells.

    Attributes:
        comparison: Scores in nested folds.
        kept: The method that was kept.
        groups: Names of the models that are weighed.
        members: A row of the table of members for each checkpoint.
        families: Names of the families.
        family: (samples,), number of each sample's family.
        fold: (samples,), nested fold of each.
        names: Name of the file and row of each.
        weights: (groups,), static weights.
        family_weights: (families, groups).
        spread: (samples,), disagreement of the members, m/s.
        seconds: Duration of fitting and comparing.
    """

    comparison: Comparison
    kept: str
    groups: Sequence[str]
    members: Sequence[Mapping[str, Any]]
    families: Sequence[str]
    family: NDArray[np.int64]
    fold: NDArray[np.int64]
    names: Sequence[tuple[str, int]]
    weights: NDArray[np.floating]
    family_weights: NDArray[np.floating]
    spread: NDArray[np.floating]
    seconds: float

    @property
    def meta(self) -> str | None:
        """The better of the meta-learners; None without one."""
        tried = [name for name in (SAMPLE, PIXEL) if name in self.comparison.scores]
        return min(tried, key=self.comparison.mae) if tried else None

    def rows_of(self, number: int) -> NDArray[np.bool_]:
        """Which samples are of a family."""
        return self.family == number

    @property
    def present(self) -> list[int]:
        """Numbers of the families that have samples."""
        return [number for number in range(len(self.families)) if self.rows_of(number).any()]


def write_ensemble_report(folder: Path, report: EnsembleReport) -> tuple[Path, Table]:
    """Write scores.csv, per_family.csv, samples.csv, weights.csv, figures/ and report.html.

    Args:
        folder: The output folder.
        report: What to tell.

    Returns:
        The path of the page, and the table of scores.

    Raises:
        UserError: If the folder cannot be written.
    """
    scores = _scores(report)
    write_csv(folder / "scores.csv", scores)
    write_csv(folder / "per_family.csv", _per_family(report))
    write_csv(folder / "samples.csv", _samples(report))
    write_csv(folder / "weights.csv", _weights(report))
    table = _score_table(scores)
    figures = folder / "figures"
    sections = [
        Section("", [_headlines(report)]),
        Section("Methods on held-out samples", [NESTED, _bars(report, figures), table]),
        Section("MAE per family (m/s)", [_family_table(report)]),
        Section("Weights", _weight_blocks(report, figures)),
        Section("Predicted quality", _quality(report, figures)),
        Section("Where the meta-learner helps", _meta(report, figures)),
        Section("Members", [records_table(report.members)]),
    ]
    path = folder / "report.html"
    title = f"Ensemble of {len(report.groups)} model{'s' if len(report.groups) != 1 else ''}"
    write_page(path, title, [section for section in sections if section.blocks], f"kept: {report.kept}")
    return path, table


def ssim_correlation(report: EnsembleReport) -> float | None:
    """Spearman's rank correlation of predicted and true SSIM of the map that static weights give."""
    found = report.comparison
    true = found.scores[STATIC]["ssim"]
    if len(true) < LEAST or np.ptp(true) == 0 or np.ptp(found.predicted_ssim) == 0:
        return None
    return float(spearmanr(found.predicted_ssim, true).statistic)


def _scores(report: EnsembleReport) -> list[dict[str, Any]]:
    """Each model's own scores, then those of every method."""
    found, rows = report.comparison, []
    for number, name in enumerate(report.groups):
        rows.append({"method": name} | {score: float(found.members[score][number].mean()) for score in SCORES})
    static = found.mae(STATIC)
    for name, scores in found.scores.items():
        row = {"method": name} | {score: float(scores[score].mean()) for score in SCORES}
        rows.append(row | {"against_static": found.mae(name) / static - 1, "kept": name == report.kept})
    return rows


def _score_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for row in scores:
        against = f"{100 * row['against_static']:+.1f} %" if "against_static" in row else "-"
        mark = "kept" if row.get("kept") else ""
        lines.append((str(row["method"]), *(cell(name, row[name]) for name in SCORES), against, mark))
    headings = ("model or method", "MAE (m/s)", "RMSE (m/s)", "SSIM", "boundary IoU", "MAE against static weights", "")
    return Table(headings, tuple(lines), "lrrrrrl")


def _per_family(report: EnsembleReport) -> list[dict[str, Any]]:
    """MAE of every model and method in each family."""
    found, rows = report.comparison, []
    groups = [(report.families[number], report.rows_of(number)) for number in report.present]
    for name, chosen in [*groups, (OVERALL, np.ones(len(report.family), bool))]:
        row: dict[str, Any] = {"family": name, "samples": int(chosen.sum())}
        row |= {group: float(found.members["mae"][place][chosen].mean()) for place, group in enumerate(report.groups)}
        rows.append(row | {method: float(scores["mae"][chosen].mean()) for method, scores in found.scores.items()})
    return rows


def _family_table(report: EnsembleReport) -> Table:
    rows = _per_family(report)
    shown = ["family", "samples", *report.comparison.scores]
    lines = [
        tuple(str(row[key]) if key in ("family", "samples") else f"{row[key]:.1f}" for key in shown) for row in rows
    ]
    return Table(tuple(shown), tuple(lines), "l" + "r" * (len(shown) - 1), total=True)


def _samples(report: EnsembleReport) -> list[dict[str, Any]]:
    found = report.comparison
    return [
        {
            "name": name,
            "index": row,
            "family": report.families[report.family[place]],
            "nested_fold": int(report.fold[place]),
            "predicted_family": report.families[found.family[place]],
            "predicted_ssim": float(found.predicted_ssim[place]),
            "ssim": float(found.scores[STATIC]["ssim"][place]),
            "expected_mae": float(found.expected_mae[place]),
        }
        | {f"mae {method}": float(scores["mae"][place]) for method, scores in found.scores.items()}
        for place, (name, row) in enumerate(report.names)
    ]


def _weights(report: EnsembleReport) -> list[dict[str, Any]]:
    rows = [(OVERALL, report.weights)] + [(report.families[n], report.family_weights[n]) for n in report.present]
    return [{"family": name} | dict(zip(report.groups, map(float, line), strict=True)) for name, line in rows]


def _headlines(report: EnsembleReport) -> tuple[Headline, ...]:
    found = report.comparison
    best = min(found.mae(name) for name in found.scores)
    heads = [
        Headline("MAE", f"{found.mae(report.kept):.1f} m/s", f"{report.kept}, {len(report.family):,} held-out samples")
    ]
    baselines = [name for name in BASELINES if name in found.scores]
    heads += [
        Headline(name, f"{found.mae(name):.1f} m/s", f"{100 * (found.mae(name) / best - 1):+.1f} % against the best")
        for name in baselines[:2]
    ]
    correlation = ssim_correlation(report)
    if correlation is not None:
        heads.append(Headline("predicted SSIM", f"{correlation:.2f}", "rank correlation with the true one"))
    return tuple(heads)


def _bars(report: EnsembleReport, figures: Path) -> Block:
    found = report.comparison
    errors = {name: float(found.members["mae"][place].mean()) for place, name in enumerate(report.groups)}
    errors |= {name: found.mae(name) for name in found.scores}
    return draw(
        method_bars(errors, report.kept),
        "MAE of each model, then of each way to combine them.",
        figures / "methods.png",
    )


def _weight_blocks(report: EnsembleReport, figures: Path) -> list[Block]:
    if len(report.groups) == 1:
        return ["A single model has the weight 1."]
    rows = _weights(report)
    weights = np.array([[row[name] for name in report.groups] for row in rows])
    names = [str(row["family"]) for row in rows]
    caption = "Static weights over all samples and per family, fitted on all samples."
    spread = report.comparison.weights
    sentence = "In the nested folds the static weights were " + "; ".join(
        f"{name} {low:.2f} to {high:.2f}"
        for name, low, high in zip(report.groups, spread.min(axis=0), spread.max(axis=0), strict=True)
    )
    return [draw(weight_table(weights, report.groups, names), caption, figures / "weights.png"), f"{sentence}."]


def _quality(report: EnsembleReport, figures: Path) -> list[Block]:
    found = report.comparison
    correlation = ssim_correlation(report)
    if correlation is None:
        return []
    true = found.scores[STATIC]
    within = [
        float(spearmanr(found.predicted_ssim[rows], true["ssim"][rows]).statistic)
        for rows in map(report.rows_of, report.present)
        if rows.sum() >= LEAST and np.ptp(true["ssim"][rows]) > 0 and np.ptp(found.predicted_ssim[rows]) > 0
    ]
    error = float(spearmanr(found.expected_mae, true["mae"]).statistic)
    right = float((found.family == report.family).mean())
    inside = f", {np.mean(within):.2f} on average within a family" if within else ""
    means = f"mean expected {found.expected_mae.mean():.1f} m/s, true {true['mae'].mean():.1f} m/s"
    sentence = (
        f"Rank correlation of predicted and true SSIM: {correlation:.2f} over all samples{inside}. Rank correlation of "
        f"expected and true MAE: {error:.2f} ({means}). "
        f"The family is told right in {100 * right:.0f} % of the samples."
    )
    caption = "Predicted and true SSIM of the map that static weights give."
    return [sentence, draw(reliability(found.predicted_ssim, true["ssim"], "SSIM"), caption, figures / "ssim.png")]


def _meta(report: EnsembleReport, figures: Path) -> list[Block]:
    found, meta = report.comparison, report.meta
    if meta is None:
        return []
    gain = found.scores[STATIC]["mae"] - found.scores[meta]["mae"]
    by_family = {report.families[n]: float(gain[report.rows_of(n)].mean()) for n in report.present}
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
    verdict = "They are kept." if meta == report.kept else f"{report.kept.capitalize()} are kept."
    share = 100 * gain.mean() / found.mae(STATIC)
    sentence = (
        f"Weights by {meta} change the MAE of static weights by {-gain.mean():+.1f} m/s ({-share:+.1f} %), "
        f"standard error {error:.1f}; they help {100 * (gain > 0).mean():.0f} % of the samples. {verdict}"
    )
    blocks: list[Block] = [
        sentence,
        draw(gains(by_family, report.spread, gain), f"Gain of {meta} over static weights.", figures / "meta.png"),
    ]
    if found.ablation:
        full = found.mae(SAMPLE)
        rows = [("nothing", f"{full:.1f}", "-")] + [
            (name, f"{values.mean():.1f}", f"{values.mean() - full:+.1f}") for name, values in found.ablation.items()
        ]
        blocks += [
            "The weights per sample without one kind of feature, trained anew:",
            Table(("left out", "MAE (m/s)", "worse by (m/s)"), tuple(rows), "lrr"),
        ]
    return blocks
