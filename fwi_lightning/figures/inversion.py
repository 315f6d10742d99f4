"""Gathers, prediction and truth side by side; galleries of many samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fwi_lightning.figures.gathers import clip_level, draw_gather
from fwi_lightning.figures.panels import (
    INK,
    SHOT_COLOUR,
    as_map,
    colour_bar,
    draw_error,
    draw_velocity,
    error_limit,
    frame_only,
    length_unit,
    place,
    positions,
    tidy,
)
from fwi_lightning.figures.style import VELOCITY_RANGE
from fwi_lightning.survey import OPENFWI, Survey

PREDICTION_COLOUR = "#d62728"
PROFILE_PLACES = (0.2, 0.5, 0.8)  # of the line's length
GAP = 0.06  # inches between the maps of a gallery


def inversion(
    gathers: NDArray[np.floating],
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating] | None = None,
    survey: Survey = OPENFWI,
    title: str = "",
) -> Figure:
    """Show one sample whole: first, middle and last gather, the predicted map, profiles down three columns.

    With the truth: true map, prediction and error below the gathers, and the true profiles in black.

    Args:
        gathers: (shots, time, receivers), the survey's shape.
        prediction: (depth, width) or (1, depth, width), m/s.
        truth: The same shape, m/s. Default None.
        survey: The acquisition. Default `OPENFWI`.
        title: Line above the figure. Default none.

    Returns:
        The figure. Its axes, in order: the gathers, the maps (truth, prediction, error, or the prediction
        alone), the three profiles, then colour bars.

    Raises:
        ValueError: If shapes do not fit each other or the survey.
    """
    predicted = as_map(prediction, "prediction")
    true = None if truth is None else as_map(truth, "truth")
    if true is not None and true.shape != predicted.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {true.shape} differ in shape.")
    limit = clip_level(gathers, survey)
    shots = sorted({0, survey.shots // 2, survey.shots - 1})
    figure, gather_axes, map_axes, profile_axes = _panels(len(shots), with_truth=true is not None)
    for axis, shot in zip(gather_axes, shots, strict=True):
        draw_gather(axis, gathers, shot, survey, limit)
    without_ylabels(gather_axes[1:])
    columns = [round(share * (predicted.shape[1] - 1)) for share in PROFILE_PLACES]
    _draw_maps(figure, map_axes, predicted, true, survey)
    for axis in map_axes:
        mark_columns(axis, columns, survey)
    draw_profiles(profile_axes, columns, predicted, true, survey)
    if title:
        figure.suptitle(title, fontsize=12, color=INK, x=0.65 / 12, y=0.985, ha="left", va="top", fontweight="bold")
    return figure


def _panels(gathers: int, with_truth: bool) -> tuple[Figure, list[Axes], list[Axes], list[Axes]]:
    """An empty figure and its axes for gathers, maps and profiles; every number is in inches."""
    top, below = 0.7, 1.1
    if with_truth:  # the gathers stand above the maps, receivers above the ground they listen to
        wide, step, tall, second = 2.3, 2.55, 2.45, 4.05
        figure = Figure(figsize=(12, second + wide + below))
        shots = [place(figure, 0.65 + step * n, top, wide, tall) for n in range(gathers)]
        maps = [place(figure, 0.65 + step * n, second, wide, wide) for n in range(3)]
        wells = [place(figure, 8.8 + 1.07 * n, top, 0.95, second + wide - top) for n in range(3)]
    else:
        wide, step, tall = 1.6, 1.75, 2.55
        figure = Figure(figsize=(12, top + tall + below))
        shots = [place(figure, 0.65 + step * n, top, wide, tall) for n in range(gathers)]
        maps = [place(figure, 6.5, top, tall, tall)]
        wells = [place(figure, 9.75 + 0.74 * n, top, 0.66, tall) for n in range(3)]
    return figure, shots, maps, wells


def _draw_maps(
    figure: Figure,
    axes: list[Axes],
    predicted: NDArray[np.floating],
    true: NDArray[np.floating] | None,
    survey: Survey,
) -> None:
    """The maps of one sample, and their colour bars below."""
    if true is None:
        image = draw_velocity(axes[0], predicted, survey)
        titles = ["predicted velocity"]
    else:
        error = predicted - true
        image = draw_velocity(axes[0], true, survey)
        draw_velocity(axes[1], predicted, survey)
        difference = draw_error(axes[2], error, survey, error_limit(error))
        titles = ["true velocity", "predicted velocity", f"error: MAE {np.abs(error).mean():.1f} m/s"]
        bar_below(figure, axes[2:], difference, "predicted - true (m/s)", extend="both")
    bar_below(figure, axes[:2], image, "velocity (m/s)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        tidy(axis)
    without_ylabels(axes[1:])


def without_ylabels(axes: list[Axes]) -> None:
    """Leave depth or time to the first panel of a row."""
    for axis in axes:
        axis.set_ylabel("")
        axis.tick_params(labelleft=False)


def bar_below(
    figure: Figure,
    axes: list[Axes],
    image: AxesImage,
    label: str,
    extend: Literal["neither", "both"] = "neither",
) -> None:
    """A colour bar under some maps, as wide as they are."""
    tall = figure.get_size_inches()[1]
    first, last = axes[0].get_position(original=True), axes[-1].get_position(original=True)
    box = (first.x0, first.y0 - 0.62 / tall, last.x1 - first.x0, 0.13 / tall)
    bar = figure.add_axes(box)
    colour_bar(bar, image, label, extend)
    if len(axes) == 1:  # no room for more
        bar.xaxis.set_major_locator(MaxNLocator(4))


def mark_columns(axis: Axes, columns: list[int], survey: Survey) -> None:
    """Shots along the top of a map, and lines where the profiles go down."""
    shots = positions(survey.shot_columns, survey)
    axis.plot(shots, np.zeros(len(shots)), "v", color=SHOT_COLOUR, markersize=4, clip_on=False, linestyle="none")
    for position in positions(tuple(columns), survey):
        axis.axvline(position, color="white", linewidth=2.0, alpha=0.55)
        axis.axvline(position, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))


def draw_profiles(
    axes: list[Axes],
    columns: list[int],
    predicted: NDArray[np.floating],
    true: NDArray[np.floating] | None,
    survey: Survey,
) -> None:
    """Velocity down three columns, like logs of three wells."""
    depth, width = predicted.shape
    scale, unit = length_unit(width * survey.spacing)
    edges = np.arange(depth + 1) * survey.spacing / scale
    line = partial(Axes.stairs, edges=edges, orientation="horizontal", baseline=None)
    for axis, column in zip(axes, columns, strict=True):
        if true is not None:
            line(axis, true[:, column], color=INK, linewidth=1.6, label="true")
        line(axis, predicted[:, column], color=PREDICTION_COLOUR, linewidth=1.3, label="predicted")
        low, high = VELOCITY_RANGE
        axis.set(xlim=(low - 100, high + 100), ylim=(edges[-1], 0))
        axis.set_title(f"at {(column + 0.5) * survey.spacing / scale:g} {unit}")
        axis.set_xticks([2000, 3000, 4000], ["2", "3", "4"])
        axis.grid(linewidth=0.3, color="#bbbbbb")
    axes[0].set_ylabel(f"depth ({unit})")
    axes[1].set_xlabel("velocity (km/s)")
    for axis in axes:
        tidy(axis)
    without_ylabels(axes[1:])
    if true is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        place_right = axes[-1].get_position().x1
        axes[0].figure.legend(
            handles,
            labels,
            fontsize=9,
            ncols=2,
            frameon=False,
            loc="upper right",
            bbox_to_anchor=(place_right, 1),
        )


def gallery(
    samples: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    columns: int = 5,
    survey: Survey = OPENFWI,
) -> Figure:
    """Show many samples small: truth above prediction above error, the same two colour scales throughout.

    Args:
        samples: Name over the sample -> (truth, prediction), each (depth, width) or (1, depth, width), m/s.
        columns: Samples beside each other; further ones go into the next band. Default 5.
        survey: Gives the spacing. Default `OPENFWI`.

    Returns:
        The figure, at most 12 inches wide. Its axes, in order: truth, prediction, error of the first sample,
        and so on, then the colour bars.

    Raises:
        ValueError: If there is no sample, or shapes do not fit.
    """
    if not samples or columns < 1:
        raise ValueError("gallery needs at least one sample and one column.")
    pairs = {name: (as_map(true, name), as_map(guess, name)) for name, (true, guess) in samples.items()}
    columns = min(columns, len(pairs))
    errors = np.concatenate([(guess - true).ravel() for true, guess in pairs.values()])
    limit = error_limit(errors, percentile=98)
    depth, width = next(iter(pairs.values()))[0].shape
    figure, boxes = _gallery_panels(len(pairs), columns, depth / width)
    for number, (name, (true, guess)) in enumerate(pairs.items()):
        axes = boxes[number]
        image = draw_velocity(axes[0], true, survey)
        draw_velocity(axes[1], guess, survey)
        difference = draw_error(axes[2], guess - true, survey, limit)
        for axis, label in zip(axes, ("true", "predicted", "error"), strict=True):
            frame_only(axis)
            if number % columns == 0:
                axis.set_ylabel(label, fontsize=10, color=INK)
        axes[0].set_title(name, fontsize=10.5, color=INK, pad=4)
        axes[2].set_xlabel(f"MAE {np.abs(guess - true).mean():.0f} m/s", fontsize=9, color=INK, labelpad=3)
    left = figure.get_size_inches()[0] - 0.75
    side = depth / width * _side(columns)
    colour_bar(place(figure, left, 0.32, 0.13, 2 * side + GAP), image, "velocity (m/s)")
    colour_bar(place(figure, left, 0.32 + 2 * (side + GAP), 0.13, side), difference, "error (m/s)", extend="both")
    return figure


def _side(columns: int) -> float:
    """Width of a gallery's maps in inches: what 12 inches leave, at most 2.4."""
    return min(2.4, (12 - 0.35 - 0.85 + GAP) / columns - GAP)


def _gallery_panels(count: int, columns: int, ratio: float) -> tuple[Figure, list[list[Axes]]]:
    """An empty gallery and the three axes of every sample; every number is in inches."""
    wide = _side(columns)
    tall, heading, caption = wide * ratio, 0.32, 0.3
    band = heading + 3 * (tall + GAP) + caption
    figure = Figure(figsize=(0.35 + columns * (wide + GAP) + 0.85, band * -(-count // columns)))
    panels = []
    for number in range(count):
        left = 0.35 + (number % columns) * (wide + GAP)
        top = number // columns * band + heading
        panels.append([place(figure, left, top + row * (tall + GAP), wide, tall) for row in range(3)])
    return figure, panels
