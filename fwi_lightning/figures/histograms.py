"""How numbers are spread: predicted velocities, misfits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fwi_lightning.figures.panels import tidy
from fwi_lightning.figures.style import VELOCITY_RANGE

VELOCITY_EDGES = np.linspace(*VELOCITY_RANGE, 61)
"""Edges of the bins of a velocity histogram, m/s: 60 bins of 50 m/s."""


def count_velocities(velocity: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count cells per bin of `VELOCITY_EDGES`; add up the counts of many maps for one histogram.

    Args:
        velocity: Any shape, m/s. Values outside the scale count in the outermost bins.

    Returns:
        (60,) int64.
    """
    inside = np.clip(velocity, VELOCITY_EDGES[0], VELOCITY_EDGES[-1])
    return np.histogram(inside, VELOCITY_EDGES)[0]


@dataclass(frozen=True)
class Spread:
    """Counts per bin.

    Attributes:
        counts: (bins,).
        edges: (bins + 1,), in the unit that the label names.
        label: Name and unit of the numbers.
        what: What was counted. Default "samples".
    """

    counts: NDArray[np.integer]
    edges: NDArray[np.floating]
    label: str
    what: str = "samples"


def histograms(*spreads: Spread) -> Figure:
    """Show histograms side by side.

    Args:
        *spreads: One per panel, at least one.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(12, 2.9), layout="constrained")
    axes = figure.subplots(1, len(spreads), squeeze=False)[0]
    for axis, spread in zip(axes, spreads, strict=True):
        axis.stairs(spread.counts, spread.edges, fill=True, color="#1f6fb4")
        axis.set(xlabel=spread.label, ylabel=spread.what, xlim=(spread.edges[0], spread.edges[-1]))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.grid(axis="y", linewidth=0.3, color="#bbbbbb")
        axis.set_axisbelow(True)
        tidy(axis)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
