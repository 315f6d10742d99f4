"""Training samples before and after augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.figures.gathers import clip_level, draw_gather
from fwi_lightning.figures.panels import INK, as_map, colour_bar, draw_velocity, frame_only, place
from fwi_lightning.survey import OPENFWI, Survey

GAP = 0.06  # inches between the panels of a sample
LEFT, RIGHT, HEADING = 0.35, 0.85, 0.32  # inches: row labels, colour bar, names


@dataclass(frozen=True)
class Change:
    """A sample before and after augmentation.

    Attributes:
        name: What to write above it.
        velocity: (1, depth, width) or (depth, width), m/s, before.
        gathers: (shots, time, receivers), before.
        new_velocity: The map after; the same shape.
        new_gathers: The gathers after; the same shape.
    """

    name: str
    velocity: NDArray[np.floating]
    gathers: NDArray[np.floating]
    new_velocity: NDArray[np.floating]
    new_gathers: NDArray[np.floating]


def changes(samples: Sequence[Change], survey: Survey = OPENFWI) -> Figure:
    """Show each sample's map above its changed map, and below them the gathers of one shot, left of the middle.

    Before and after share their colours: the gathers of a sample those of its own amplitudes before.

    Args:
        samples: The samples, beside each other; five draw well.
        survey: The acquisition. Default `OPENFWI`.

    Returns:
        The figure, at most 12 inches wide. Its axes, in order: map, changed map, gather, changed gather of the first
        sample, and so on, then the colour bar.

    Raises:
        ValueError: If there is no sample, or shapes do not fit.
    """
    if not samples:
        raise ValueError("changes needs at least one sample.")
    depth, width = survey.grid
    wide = min(2.4, (12 - LEFT - RIGHT) / len(samples) - GAP)
    heights = [wide * depth / width] * 2 + [wide * 1.25] * 2
    figure = Figure(
        figsize=(LEFT + len(samples) * (wide + GAP) + RIGHT, HEADING + sum(heights) + GAP * len(heights) + 0.1)
    )
    for number, sample in enumerate(samples):
        left = LEFT + number * (wide + GAP)
        tops = HEADING + np.cumsum([0, *heights[:-1]]) + GAP * np.arange(len(heights))
        axes = [place(figure, left, top, wide, tall) for top, tall in zip(tops, heights, strict=True)]
        _draw(axes, sample, survey)
        axes[0].set_title(sample.name, fontsize=10.5, color=INK, pad=4)
        if number == 0:
            for axis, label in zip(axes, ("map", "augmented", "gather", "augmented"), strict=True):
                axis.set_ylabel(label, fontsize=10, color=INK)
    bar = place(figure, figure.get_size_inches()[0] - RIGHT + 0.1, HEADING, 0.13, 2 * heights[0] + GAP)
    colour_bar(bar, figure.axes[0].images[0], "velocity (m/s)")
    return figure


def _draw(axes: Sequence[Axes], sample: Change, survey: Survey) -> None:
    """One column: two maps, two gathers."""
    for axis, velocity in zip(axes[:2], (sample.velocity, sample.new_velocity), strict=True):
        draw_velocity(axis, as_map(velocity, sample.name), survey)
        frame_only(axis)
    limit = clip_level(sample.gathers, survey)
    for axis, gathers in zip(axes[2:], (sample.gathers, sample.new_gathers), strict=True):
        # Not the middle shot: its mirror image looks the same, and in OpenFWI it is the one that may be silenced.
        draw_gather(axis, gathers, survey.shots // 4, survey, limit)
        frame_only(axis)
        axis.set_title("")
