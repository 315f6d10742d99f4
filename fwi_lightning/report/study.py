"""The report of a sweep: `trials.csv`, `figures/*.png` and `report.html` in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fwi_lightning.figures.study import COMPLETE, FAILED, PRUNED, TrialPoint, best_of, history, importance, slices
from fwi_lightning.report.page import Block, Headline, Section, draw, write_page
from fwi_lightning.report.tables import Table, write_csv
from fwi_lightning.sweep.study import ended

ENOUGH = 4
"""Complete trials from which the importance of parameters is estimated."""

SHOWN = 10
"""Trials in the table of the page."""

STATES = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}


def write_study_report(folder: Path, study: optuna.Study, metric: str) -> Path:
    """Write `folder/trials.csv`, `folder/figures/*.png` and `folder/report.html`.

    Args:
        folder: The folder of the sweep.
        study: What to tell.
        metric: Name of the score.

    Returns:
        The path of the page.

    Raises:
        UserError: If the folder cannot be written.
    """
    found = ended(study)
    points = [_point(trial) for trial in found]
    minimise = study.direction == StudyDirection.MINIMIZE
    write_csv(folder / "trials.csv", [_record(trial, metric) for trial in found])
    sections = [Section("", [_headlines(points, metric, minimise)])]
    if points:
        figures = folder / "figures"
        log = [name for name, end in found[0].distributions.items() if getattr(end, "log", False)]
        sections += [
            Section("History", [_history(points, metric, minimise, figures)]),
            Section("Importance", _importance(study, figures)),
            Section("Along each parameter", [_slices(points, metric, minimise, log, figures)]),
            Section(f"The best {min(SHOWN, len(points))} trials", [_table(points, metric, minimise)]),
        ]
    path = folder / "report.html"
    write_page(path, f"Sweep {study.study_name}", sections, f"{study.direction.name.lower()} {metric}")
    return path


def _point(trial: FrozenTrial) -> TrialPoint:
    # A pruned trial may have been told none.
    score = trial.value if trial.values else None
    return TrialPoint(trial.number, STATES[trial.state], score, trial.params)


def _record(trial: FrozenTrial, metric: str) -> dict[str, Any]:
    """A row of trials.csv."""
    seconds = trial.duration.total_seconds() if trial.duration else None
    point = _point(trial)
    row = {"trial": trial.number, "state": point.state, metric: point.score, **trial.params}
    row |= {"validations": len(trial.intermediate_values), "seconds": seconds}
    return row | {"error": trial.user_attrs.get("error")}


def _headlines(points: Sequence[TrialPoint], metric: str, minimise: bool) -> tuple[Headline, ...]:
    best = best_of(points, minimise)
    count = {state: sum(point.state == state for point in points) for state in (COMPLETE, PRUNED, FAILED)}
    first = Headline(f"best {metric}", "-", "no trial is complete")
    if best is not None:
        settings = ", ".join(f"{name}={_short(value)}" for name, value in best.parameters.items())
        first = Headline(f"best {metric}", _short(best.score), f"trial {best.number}: {settings}")
    return (
        first,
        Headline("complete", str(count[COMPLETE]), f"of {len(points)} trials"),
        Headline("pruned", str(count[PRUNED]), "stopped early as hopeless"),
        Headline("failed", str(count[FAILED]), "see trials.csv for why" if count[FAILED] else ""),
    )


def _history(points: Sequence[TrialPoint], metric: str, minimise: bool, figures: Path) -> Block:
    caption = (
        f"{metric} of every trial. A pruned trial stands at its last score before it was stopped, a failed one at the "
        "lower edge, and one far from all others at the edge that it lies beyond."
    )
    return draw(history(points, metric, minimise), caption, figures / "history.png")


def _importance(study: optuna.Study, figures: Path) -> list[Block]:
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(complete) < ENOUGH:
        return [f"Estimated from {ENOUGH} complete trials on; there are {len(complete)}."]
    try:
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (RuntimeError, ValueError) as error:
        return [f"Cannot be estimated from these trials: {error}"]
    caption = (
        "Share of the variance of the score over the whole search space that each parameter explains, by fANOVA: a "
        f"random forest fitted to the {len(complete)} complete trials. With few trials it is a hint, no more."
    )
    return [draw(importance(shares), caption, figures / "importance.png")]


def _slices(points: Sequence[TrialPoint], metric: str, minimise: bool, log: Sequence[str], figures: Path) -> Block:
    caption = f"{metric} along each parameter, the others as they happened to be. Ringed: the best trial."
    return draw(slices(points, metric, minimise, log), caption, figures / "slices.png")


def _table(points: Sequence[TrialPoint], metric: str, minimise: bool) -> Table:
    """The best trials first, then the pruned, then the failed ones."""

    def rank(point: TrialPoint) -> tuple[int, float]:
        score = point.score if point.score is not None else 0.0
        return (COMPLETE, PRUNED, FAILED).index(point.state), score if minimise else -score

    shown = sorted(points, key=rank)[:SHOWN]
    names = list(shown[0].parameters)
    rows = [
        (str(point.number), point.state, _short(point.score), *(_short(point.parameters.get(name)) for name in names))
        for point in shown
    ]
    return Table(headings=("trial", "state", metric, *names), rows=tuple(rows), align="rlr" + "r" * len(names))


def _short(value: Any) -> str:
    """A number in four digits, anything else as it is."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
