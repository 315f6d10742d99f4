"""The panels that figures are put together from: a velocity map, an error map, axes that look alike.

Lengths: the cell in column c covers c * spacing to (c + 1) * spacing, so a map of 70 cells of 10 m spans 0 to
700 m and a shot in column c stands at (c + 0.5) * spacing.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from fwi_lightning.figures.style import VELOCITY_CMAP, VELOCITY_RANGE
from fwi_lightning.survey import Survey

ERROR_CMAP = "RdBu_r"
"""Colour map of prediction - truth: white where right, red too fast, blue too slow."""

SHOT_COLOUR = "#d62728"
"""Colour of shot positions."""

INK = "#222222"
"""Colour of text and frames."""


def as_map(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return (depth, width), whether or not the map came with its channel axis.

    Args:
        array: (depth, width) or (1, depth, width).
        name: What it is, for the message.

    Raises:
        ValueError: If the array is no map.
    """
    flat = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if flat.ndim != 2:
        raise ValueError(f"{name} must be (depth, width) or (1, depth, width), got shape {array.shape}.")
    return flat


def length_unit(longest: float) -> tuple[float, str]:
    """Metres up to 3 km, kilometres beyond.

    Args:
        longest: Longest length on the axis, m.

    Returns:
        Metres in one unit, and the unit's name.
    """
    return (1.0, "m") if longest <= 3000 else (1000.0, "km")


def positions(columns: tuple[int, ...], survey: Survey) -> NDArray[np.float64]:
    """Where columns stand along the line, in the unit of the survey's axes."""
    scale, _ = length_unit(survey.grid[1] * survey.spacing)
    return (np.asarray(columns) + 0.5) * survey.spacing / scale


def error_limit(error: NDArray[np.floating], percentile: float = 99.0) -> float:
    """End of a symmetric colour scale for errors: a percentile of their size, rounded up to 50 m/s.

    Args:
        error: Prediction - truth of one map or several, m/s, any shape.
        percentile: Share of cells, in percent, that lie within the scale. Default 99.

    Returns:
        m/s, at least 50.
    """
    return max(50.0, float(np.ceil(np.percentile(np.abs(error), percentile) / 50) * 50))


def draw_velocity(axis: Axes, velocity: NDArray[np.floating], survey: Survey) -> AxesImage:
    """Draw a velocity map on the project's colour scale, with position and depth axes.

    Args:
        axis: Where to draw.
        velocity: (depth, width), m/s.
        survey: Gives the spacing.
    """
    return draw_cells(axis, velocity, survey, VELOCITY_CMAP, VELOCITY_RANGE)


def draw_error(axis: Axes, error: NDArray[np.floating], survey: Survey, limit: float) -> AxesImage:
    """Draw prediction - truth, symmetric about zero.

    Args:
        axis: Where to draw.
        error: (depth, width), m/s.
        survey: Gives the spacing.
        limit: End of the colour scale, m/s.
    """
    return draw_cells(axis, error, survey, ERROR_CMAP, (-limit, limit))


def draw_cells(
    axis: Axes,
    values: NDArray[Any],
    survey: Survey,
    cmap: str | Colormap,
    limits: tuple[float, float],
) -> AxesImage:
    """Draw one value per cell, with position and depth axes.

    Args:
        axis: Where to draw.
        values: (depth, width), any unit.
        survey: Gives the spacing.
        cmap: Colour map.
        limits: Values at the two ends of the colours.
    """
    depth, width = values.shape
    scale, unit = length_unit(width * survey.spacing)
    step = survey.spacing / scale
    image = axis.imshow(
        values,
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, width * step, depth * step, 0),
        # a long line in true proportion would be a thread: stretch its depth
        aspect="equal" if width <= 2 * depth else "auto",
        interpolation="nearest",
    )
    axis.set_xlabel(f"position ({unit})")
    axis.set_ylabel(f"depth ({unit})")
    tidy(axis)
    return image


def tidy(axis: Axes, size: float = 8.0) -> None:
    """Small ticks, thin frame, one text size.

    Args:
        axis: What to tidy, after its labels are set.
        size: Text size in points. Default 8.
    """
    axis.tick_params(labelsize=size, width=0.5, length=2.5, color=INK, labelcolor=INK)
    axis.spines[:].set_linewidth(0.5)
    axis.spines[:].set_color(INK)
    for text in (axis.xaxis.label, axis.yaxis.label):
        text.set_fontsize(size)
        text.set_color(INK)
    axis.title.set_fontsize(size + 1.5)
    axis.title.set_color(INK)


def frame_only(axis: Axes) -> None:
    """Take away ticks and labels: in a gallery the maps speak."""
    axis.set(xticks=[], yticks=[], xlabel="", ylabel="")


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches, so that panels of one figure line up exactly.

    Args:
        figure: Where to add them; its size must be final.
        left: From the figure's left edge.
        top: From the figure's upper edge.
        width: Of the axes.
        height: Of the axes.
    """
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def colour_bar(axis: Axes, image: AxesImage, label: str, extend: Literal["neither", "both"] = "neither") -> None:
    """Turn axes into the colour bar of an image, lying or standing as the axes are.

    Args:
        axis: Empty axes, long and thin.
        image: Whose colours.
        label: Name and unit.
        extend: "both" if values lie beyond the ends. Default "neither".
    """
    box = axis.get_window_extent()
    lying = box.width > box.height
    bar = axis.figure.colorbar(image, cax=axis, orientation="horizontal" if lying else "vertical", extend=extend)
    bar.set_label(label)
    bar.outline.set_linewidth(0.5)
    tidy(axis)
