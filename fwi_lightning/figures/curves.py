"""How training went, and how each family came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fwi_lightning.figures.panels import INK, tidy

MODEL_COLOUR = "#1f6fb4"
BASELINE_COLOUR = "#8a8a8a"


def training_curves(rows: Sequence[Mapping[str, float]], baseline: float | None = None) -> Figure:
    """Show training loss and learning rate per step, validation MAE per epoch.

    Args:
        rows: Rows of metrics.csv, each with the keys that it logged: `step`, `epoch`, `train/loss`,
            `val/mae`, and the learning rate under a name that starts with `lr`.
        baseline: MAE of the mean map, m/s, drawn dashed. Default None.

    Returns:
        The figure; a panel whose figures were never logged says so.
    """
    figure = Figure(figsize=(12, 3.3), layout="constrained")
    loss, error, rate = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    _draw_loss(loss, *series(rows, "step", "train/loss"))
    _draw_error(error, *series(rows, "epoch", "val/mae"), baseline)
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("lr"))
    for name in names:
        rate.plot(*series(rows, "step", name), color=MODEL_COLOUR, linewidth=1.5)
    if not names:
        _say_empty(rate)
    rate.set(title="learning rate", xlabel="optimiser step")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate.yaxis.get_offset_text().set_size(8)
    for axis in (loss, error, rate):
        axis.grid(linewidth=0.3, color="#bbbbbb")
        tidy(axis)
    return figure


def series(
    rows: Sequence[Mapping[str, float]], across: str, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One logged number along another, from the rows that have both.

    Args:
        rows: Rows of metrics.csv.
        across: Key of the horizontal axis, such as `step`.
        name: Key of the number.

    Returns:
        Two arrays (count,), empty where it was never logged.
    """
    found = [(row[across], row[name]) for row in rows if across in row and name in row]
    pairs = np.array(found, dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _draw_loss(axis: Axes, step: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
    """Every logged loss faintly, its running mean over a twentieth of the run boldly."""
    axis.set(title="training loss", xlabel="optimiser step")
    if not len(loss):
        _say_empty(axis)
        return
    window = max(1, len(loss) // 20)
    if window > 1:
        axis.plot(step, loss, color=MODEL_COLOUR, linewidth=0.8, alpha=0.35, label="each step")
        mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
        axis.plot(step[window - 1 :], mean, color=MODEL_COLOUR, linewidth=1.6, label=f"mean of {window}")
        axis.legend(fontsize=8, frameon=False)
    else:
        axis.plot(step, loss, color=MODEL_COLOUR, linewidth=1.6, marker="." if len(loss) < 30 else None)
    axis.set_ylim(bottom=0, top=1.05 * np.percentile(loss, 99.5))


def _draw_error(axis: Axes, epoch: NDArray[np.float64], error: NDArray[np.float64], baseline: float | None) -> None:
    """Validation MAE with its best epoch marked."""
    axis.set(title="validation MAE (m/s)", xlabel="epochs done")
    if baseline is not None:
        axis.axhline(baseline, color=BASELINE_COLOUR, linestyle="--", linewidth=1.3, label=f"mean map: {baseline:.0f}")
    if len(error):
        done = epoch + 1  # the log counts from 0
        axis.plot(done, error, color=MODEL_COLOUR, linewidth=1.6, marker="." if len(error) < 60 else None)
        best = int(np.argmin(error))
        axis.plot(done[best], error[best], "o", color="#d62728", markersize=5, label=f"best: {error[best]:.1f}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        _say_empty(axis)
    axis.set_ylim(bottom=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, loc="lower left")


def _say_empty(axis: Axes) -> None:
    axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", va="center", color=BASELINE_COLOUR)


def family_bars(errors: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> Figure:
    """Show the MAE of every family beside that of the mean map.

    Args:
        errors: Name of a family (and "all") -> MAE, m/s.
        baseline: The same names -> MAE of the mean map, m/s. Default None; names it lacks get no second bar.

    Returns:
        The figure, a group of bars per name, in the order given.
    """
    names, place = list(errors), np.arange(len(errors))
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axis = figure.subplots()
    shift = 0.2 if baseline else 0.0
    bars = axis.bar(place - shift, list(errors.values()), 0.4, color=MODEL_COLOUR, label="model")
    axis.bar_label(bars, fmt="%.0f", fontsize=8, color=MODEL_COLOUR, padding=1)
    if baseline:
        values = [baseline.get(name, np.nan) for name in names]
        grey = axis.bar(place + shift, values, 0.4, color="#c4c4c4", label="mean of the training maps")
        labels = ["" if np.isnan(value) else f"{value:.0f}" for value in values]
        axis.bar_label(grey, labels, fontsize=8, color="#666666", padding=1)
        axis.legend(fontsize=9, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    axis.set_xticks(place, names)
    axis.set_ylabel("MAE (m/s)")
    axis.margins(x=0.01, y=0.1)
    axis.grid(axis="y", linewidth=0.3, color="#bbbbbb")
    axis.set_axisbelow(True)
    tidy(axis, 9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.label.set_color(INK)
    return figure


def fold_spread(errors: Mapping[str, Sequence[float]]) -> Figure:
    """Show the MAE of every family in every fold.

    Args:
        errors: Name of a family (and "all") -> MAE of each fold, m/s.

    Returns:
        The figure: a bar for the mean of a family, a dot for each fold.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(errors))
    means = [float(np.mean(values)) for values in errors.values()]
    bars = axis.bar(place, means, 0.6, color="#c4d9ec")
    axis.bar_label(bars, fmt="%.0f", fontsize=8, color=MODEL_COLOUR, label_type="center")
    for number, values in enumerate(errors.values()):
        shift = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(number + shift, values, "o", color=MODEL_COLOUR, markersize=4)
    axis.set_xticks(place, list(errors))
    axis.set_ylabel("MAE (m/s)")
    axis.set_ylim(bottom=0)
    axis.margins(x=0.01)
    axis.grid(axis="y", linewidth=0.3, color="#bbbbbb")
    axis.set_axisbelow(True)
    tidy(axis, 9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
