"""How a hyperparameter sweep went: its history, what mattered, and the score along each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from fwi_lightning.figures.panels import tidy

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
"""States of a trial."""

COLOURS = {COMPLETE: "#1f6fb4", PRUNED: "#e08214", FAILED: "#8a8a8a"}
MARKERS = {COMPLETE: "o", PRUNED: "v", FAILED: "x"}
BEST_COLOUR = "#d62728"
ACROSS = 3
"""Panels in a row of slices."""

FEW = 6
"""Values of a parameter that get a tick each."""


@dataclass(frozen=True)
class TrialPoint:
    """A trial as it is drawn.

    Attributes:
        number: Of the trial.
        state: complete, pruned or failed.
        score: Its score; of a pruned trial the last one; None if it has none.
        parameters: Name of a setting -> its value.
    """

    number: int
    state: str
    score: float | None
    parameters: Mapping[str, Any]


def best_of(trials: Sequence[TrialPoint], minimise: bool) -> TrialPoint | None:
    """The complete trial with the best score; None if there is none."""
    scored = [(trial.score, trial) for trial in trials if trial.state == COMPLETE and trial.score is not None]
    return (min if minimise else max)(scored, key=lambda pair: pair[0], default=(None, None))[1]


def history(trials: Sequence[TrialPoint], metric: str, minimise: bool) -> Figure:
    """Show the score of each trial and the best one so far.

    Args:
        trials: In their order.
        metric: Name of the score.
        minimise: Whether less is better.

    Returns:
        The figure; failed trials stand at its lower edge, scores far from the others at the edge they lie beyond.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axis = figure.subplots()
    limits = _limits(trials, minimise)
    complete = [(trial.number, trial.score) for trial in trials if trial.state == COMPLETE and trial.score is not None]
    if complete:
        numbers, scores = np.array(complete, dtype=float).T
        so_far = (np.minimum if minimise else np.maximum).accumulate(scores)
        last = max(trial.number for trial in trials)
        axis.step(
            [*numbers, last], [*so_far, so_far[-1]], where="post", color=BEST_COLOUR, linewidth=1.4, label="best so far"
        )
    _scatter(axis, trials, [trial.number for trial in trials], limits)
    axis.set(xlabel="trial", ylabel=metric)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=9, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    _finish(axis, limits)
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """Show how much of the score's variance each parameter explains.

    Args:
        shares: Name of a setting -> its share; they sum to 1.
    """
    figure = Figure(figsize=(12, 0.7 + 0.42 * max(1, len(shares))), layout="constrained")
    axis = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    bars = axis.barh(names, [shares[name] for name in names], 0.6, color=COLOURS[COMPLETE])
    axis.bar_label(bars, [f"{shares[name]:.0%}" for name in names], fontsize=9, padding=3)
    axis.set(xlabel="share of the variance", xlim=(0, 1.08))
    tidy(axis, 9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def slices(trials: Sequence[TrialPoint], metric: str, minimise: bool, log: Sequence[str] = ()) -> Figure:
    """Show the score along each parameter, a panel each; the best trial is ringed.

    Args:
        trials: In their order.
        metric: Name of the score.
        minimise: Whether less is better.
        log: Parameters on a logarithmic axis. Default none.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    rows = max(1, math.ceil(len(names) / ACROSS))
    figure = Figure(figsize=(12, 3.1 * rows), layout="constrained")
    panels = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    limits, best = _limits(trials, minimise), best_of(trials, minimise)
    for panel, name in zip(panels, names, strict=False):
        across, ticks = _places(trials, name)
        _scatter(panel, trials, across, limits)
        if best is not None:
            place = across[list(trials).index(best)]
            panel.plot(place, best.score, "o", markersize=12, markerfacecolor="none", markeredgecolor=BEST_COLOUR)
        if ticks:
            panel.set_xticks(range(len(ticks)), ticks)
            panel.set_xlim(-0.5, len(ticks) - 0.5)
        elif name in log:
            panel.set_xscale("log")
            # By default a range of less than a decade gets labels like 2 x 10^-3 at every step, one over the other.
            narrow = max(across) < 100 * min(across)
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_formatter(NullFormatter())
        elif len(set(across)) <= FEW:
            panel.set_xticks(sorted(set(across)))
        panel.set(xlabel=name, ylabel=metric)
        _finish(panel, limits)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return figure


def _places(trials: Sequence[TrialPoint], name: str) -> tuple[list[float], list[str]]:
    """Where each trial stands along a parameter, and the labels if its values are no numbers."""
    values = [trial.parameters.get(name) for trial in trials]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values if value is not None], []
    labels = sorted(set(map(str, values)))
    return [float(labels.index(str(value))) for value in values], labels


def _limits(trials: Sequence[TrialPoint], minimise: bool) -> tuple[float, float]:
    """Ends of the axis of scores: those that diverged or were stopped early must not flatten the others."""
    scored = [trial for trial in trials if trial.score is not None]
    complete = [trial for trial in scored if trial.state == COMPLETE]
    scores = np.array([trial.score for trial in complete or scored], dtype=float)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return 0.0, 1.0
    first, third = np.percentile(scores, (25, 75))
    reach = 3 * (third - first)
    inside = scores[scores <= third + reach] if minimise else scores[scores >= first - reach]
    margin = 0.08 * (inside.max() - inside.min()) or 0.05 * abs(inside[0]) or 1.0
    return float(inside.min() - margin), float(inside.max() + margin)


def _scatter(axis: Axes, trials: Sequence[TrialPoint], across: Sequence[float], limits: tuple[float, float]) -> None:
    for state in (COMPLETE, PRUNED, FAILED):
        chosen = [place for place, trial in enumerate(trials) if trial.state == state]
        if not chosen:
            continue
        scores: NDArray[np.float64] = np.array(
            [score if (score := trials[place].score) is not None else limits[0] for place in chosen], dtype=float
        )
        axis.scatter(
            [across[place] for place in chosen],
            np.clip(np.nan_to_num(scores, nan=limits[1]), *limits),
            s=28,
            color=COLOURS[state],
            marker=MARKERS[state],
            alpha=0.85,
            clip_on=False,
            zorder=3,
            label=f"{len(chosen)} {state}",
        )


def _finish(axis: Axes, limits: tuple[float, float]) -> None:
    axis.set_ylim(limits)
    axis.grid(linewidth=0.3, color="#bbbbbb")
    axis.set_axisbelow(True)
    tidy(axis, 9)
    axis.spines[["top", "right"]].set_visible(False)
