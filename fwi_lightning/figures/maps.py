"""Sheets of velocity maps, for the eye to compare families."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.figures.style import VELOCITY_CMAP, VELOCITY_RANGE
from fwi_lightning.survey import OPENFWI

_BAR_WIDTH = 0.16  # inches


def contact_sheet(
    maps: Mapping[str, NDArray[np.floating]], columns: int = 6, spacing: float = OPENFWI.spacing
) -> Figure:
    """Show the first maps of every family, a row each, on one colour scale.

    Args:
        maps: Name of a family -> (count, 1, depth, width) or (count, depth, width), m/s. A family with fewer
            than `columns` maps leaves the rest of its row empty.
        columns: Maps shown of each family. Default 6.
        spacing: Edge of a cell in metres, for the scale under the sheet. Default 10.

    Returns:
        The figure; `figure.savefig(path)` writes it.

    Raises:
        ValueError: If there is no family, or an array is not a stack of maps.
    """
    stacks = {name: _as_stack(name, stack) for name, stack in maps.items()}
    if not stacks or columns < 1:
        raise ValueError("contact_sheet needs at least one family and one column.")
    depth, width = next(iter(stacks.values())).shape[1:]
    cell = 1.15  # inches a map is wide
    height = cell * depth / width
    size = (columns * cell + 1.9, len(stacks) * height + 0.45)
    figure = Figure(figsize=size)
    figure.set_layout_engine("compressed", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(stacks), columns, squeeze=False)
    for row, (name, stack) in zip(axes, stacks.items(), strict=True):
        for column, axis in enumerate(row):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_linewidth(0.4)
            if column < len(stack):
                image = axis.imshow(
                    stack[column],
                    cmap=VELOCITY_CMAP,
                    vmin=VELOCITY_RANGE[0],
                    vmax=VELOCITY_RANGE[1],
                    interpolation="nearest",
                )
            else:
                axis.set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.012, aspect=size[1] / _BAR_WIDTH)
    bar.set_label("velocity (m/s)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.supxlabel(f"each map {width * spacing:g} m wide, {depth * spacing:g} m deep", fontsize=8)
    return figure


def _as_stack(name: str, stack: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return (count, depth, width), whatever channel axis the maps came with."""
    if stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.ndim != 3 or stack.shape[0] == 0:
        raise ValueError(f"{name}: expected (count, 1, depth, width) velocity maps, got shape {stack.shape}.")
    return stack
