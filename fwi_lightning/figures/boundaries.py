"""What boundary IoU counts: hits, misses and false alarms, cell by cell."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from fwi_lightning.figures.panels import INK, as_map, draw_cells, draw_velocity, tidy
from fwi_lightning.survey import OPENFWI, Survey

HIT, MISS, FALSE_ALARM = 1, 2, 3
"""Numbers of the classes of a cell; 0 is no boundary."""

CLASS_COLOURS = ("#ffffff", "#1a9e6f", "#f08c00", "#8e44ad")
"""Colours of nothing, hit, miss, false alarm; told apart by the colour-blind too."""


def classify(
    true: NDArray[np.bool_], predicted: NDArray[np.bool_], tolerance: int = 1
) -> tuple[NDArray[np.int8], float]:
    """Sort boundary cells into hits, misses and false alarms, and count them to the boundary IoU.

    A cell of either boundary is a hit if the other one has a cell within `tolerance`; a true cell without one
    is a miss, a predicted cell without one a false alarm. IoU = H / (H + misses + false alarms), H being the
    mean of the true and the predicted hits.

    Args:
        true: (depth, width), cells of the true boundary.
        predicted: The same shape, cells of the predicted boundary.
        tolerance: Cells in every direction, diagonals included. Default 1.

    Returns:
        (depth, width) int8 of 0, `HIT`, `MISS`, `FALSE_ALARM`; and the IoU, 1 if neither map has a boundary.
    """
    window = 2 * tolerance + 1
    near_true, near_predicted = (maximum_filter(mask, window, mode="constant") for mask in (true, predicted))
    true_hits, predicted_hits = true & near_predicted, predicted & near_true
    classes = np.zeros(true.shape, np.int8)
    classes[true_hits | predicted_hits] = HIT
    classes[true & ~near_predicted] = MISS
    classes[predicted & ~near_true] = FALSE_ALARM
    hits = (true_hits.sum() + predicted_hits.sum()) / 2
    union = hits + (classes == MISS).sum() + (classes == FALSE_ALARM).sum()
    return classes, float(hits / union) if union else 1.0


def boundaries(
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    true_boundary: NDArray[np.bool_],
    predicted_boundary: NDArray[np.bool_],
    tolerance: int = 1,
    survey: Survey = OPENFWI,
) -> Figure:
    """Explain the boundary IoU of one sample: both maps with their boundaries, and how the boundaries meet.

    Args:
        truth: (depth, width) or (1, depth, width), m/s.
        prediction: The same shape, m/s.
        true_boundary: Cells of the true boundary, bool, the same shape.
        predicted_boundary: Cells of the predicted boundary, bool, the same shape.
        tolerance: Cells by which a boundary may be off. Default 1.
        survey: Gives the spacing. Default `OPENFWI`.

    Returns:
        The figure: truth, prediction, comparison.

    Raises:
        ValueError: If shapes do not fit.
    """
    true, predicted = as_map(truth, "truth"), as_map(prediction, "prediction")
    masks = as_map(true_boundary, "true boundary"), as_map(predicted_boundary, "predicted boundary")
    if len({array.shape for array in (true, predicted, *masks)}) > 1:
        raise ValueError("maps and boundaries must have one shape.")
    classes, iou = classify(masks[0], masks[1], tolerance)
    figure = Figure(figsize=(12, 4.75), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, velocity, mask, title in zip(
        axes, (true, predicted), masks, ("true boundary", "predicted boundary"), strict=False
    ):
        draw_velocity(axis, velocity, survey)
        draw_cells(axis, np.where(mask, 1.0, np.nan), survey, ListedColormap([INK]), (0, 2))
        axis.set_title(f"{title}: {mask.sum()} cells")
    draw_cells(axes[2], classes, survey, ListedColormap(CLASS_COLOURS), (-0.5, 3.5))
    axes[2].set_title(f"boundary IoU {iou:.2f}", fontweight="bold")
    for axis in axes:
        tidy(axis)
        axis.label_outer()
    names = (f"hit (within {tolerance} cell{'s' if tolerance != 1 else ''})", "missed", "false alarm")
    handles = [
        Patch(color=CLASS_COLOURS[number], label=f"{name}: {(classes == number).sum()}")
        for number, name in enumerate(names, start=HIT)
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=9, frameon=False)
    return figure
