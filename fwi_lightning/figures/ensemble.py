"""How members of an ensemble are weighed, what that brings, and whether predicted quality can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.figures.curves import BASELINE_COLOUR, MODEL_COLOUR
from fwi_lightning.figures.panels import INK, tidy

GAIN_COLOUR, LOSS_COLOUR = "#2a9d5c", "#d62728"
BINS = 10
"""Groups of equally many samples whose means show a reliability."""


def method_bars(errors: Mapping[str, float], kept: str) -> Figure:
    """Show the MAE of every member and method.

    Args:
        errors: Name -> MAE in m/s, from top to bottom.
        kept: The method that was kept, in another colour.
    """
    figure = Figure(figsize=(12, 0.8 + 0.3 * len(errors)), layout="constrained")
    axis = figure.subplots()
    names = list(errors)
    colours = [MODEL_COLOUR if name == kept else "#c4c4c4" for name in names]
    bars = axis.barh(np.arange(len(names)), list(errors.values()), 0.7, color=colours)
    axis.bar_label(bars, fmt="%.1f", fontsize=9, padding=3)
    axis.set_yticks(np.arange(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="MAE (m/s)", xlim=(0, 1.08 * max(errors.values())))
    tidy(axis, 9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def weight_table(weights: NDArray[np.floating], members: Sequence[str], rows: Sequence[str]) -> Figure:
    """Show weights as a table of colours.

    Args:
        weights: (rows, members), 0..1.
        members: Names of the columns.
        rows: Names of the rows.
    """
    figure = Figure(figsize=(12, 0.9 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(weights):
        for column, value in enumerate(line):
            colour = "white" if value > 0.6 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    axis.set_xticks(np.arange(len(members)), members)
    axis.set_yticks(np.arange(len(rows)), rows)
    tidy(axis, 9)
    return figure


def reliability(predicted: NDArray[np.floating], true: NDArray[np.floating], what: str) -> Figure:
    """Show predicted against true quality: every sample, and the means of samples of about equal prediction.

    Args:
        predicted: (samples,).
        true: (samples,).
        what: Name of the quality, with its unit.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(predicted, true, ".", color=MODEL_COLOUR, markersize=3, alpha=0.4, label="a sample")
    order = np.argsort(predicted)
    groups = [part for part in np.array_split(order, BINS) if len(part)]
    means = np.array([(predicted[part].mean(), true[part].mean()) for part in groups])
    axis.plot(means[:, 0], means[:, 1], "o-", color=LOSS_COLOUR, markersize=5, label=f"means of {BINS}ths")
    ends = [min(predicted.min(), true.min()), max(predicted.max(), true.max())]
    axis.plot(ends, ends, "--", color=BASELINE_COLOUR, linewidth=1, label="predicted = true")
    axis.set(xlabel=f"predicted {what}", ylabel=f"true {what}")
    axis.legend(fontsize=9, frameon=False, loc="upper left")
    axis.grid(linewidth=0.3, color="#bbbbbb")
    tidy(axis, 9)
    return figure


def gains(by_family: Mapping[str, float], spread: NDArray[np.floating], gain: NDArray[np.floating]) -> Figure:
    """Show where a method is better than static weights: by family, and along the members' disagreement.

    Args:
        by_family: Name of a family -> MAE of static weights less that of the method, m/s.
        spread: (samples,), disagreement of the members, m/s.
        gain: (samples,), the same difference of each sample, m/s.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    values = list(by_family.values())
    colours = [GAIN_COLOUR if value >= 0 else LOSS_COLOUR for value in values]
    bars = left.barh(np.arange(len(values)), values, 0.7, color=colours)
    left.bar_label(bars, fmt="%.1f", fontsize=8, padding=3)
    left.set_yticks(np.arange(len(values)), list(by_family))
    left.invert_yaxis()
    left.margins(x=0.15)
    left.axvline(0, color=INK, linewidth=0.5)
    left.set(xlabel="gain over static weights (m/s)", title="by family")
    right.plot(spread, gain, ".", color=MODEL_COLOUR, markersize=3, alpha=0.4)
    groups = [part for part in np.array_split(np.argsort(spread), BINS) if len(part)]
    right.plot(
        [spread[p].mean() for p in groups], [gain[p].mean() for p in groups], "o-", color=LOSS_COLOUR, markersize=5
    )
    right.axhline(0, color=INK, linewidth=0.5)
    right.set(xlabel="disagreement of the members (m/s)", ylabel="gain (m/s)", title="along the disagreement")
    for axis in (left, right):
        tidy(axis, 9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
