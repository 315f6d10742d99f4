"""Shot gathers: what the receivers recorded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.figures.panels import SHOT_COLOUR, length_unit, positions, tidy
from fwi_lightning.survey import OPENFWI, Survey

GATHER_CMAP = "gray"
"""Colour map of recorded pressure: black negative, white positive. "seismic" is the other usual one."""

GATHER_CLIP = 96.0
"""Percentile of the amplitudes at which colours end: the direct wave, 30 times a reflection, is clipped."""


def gathers(
    records: NDArray[np.floating],
    survey: Survey = OPENFWI,
    shots: Sequence[int] | None = None,
    clip: float = GATHER_CLIP,
    cmap: str = GATHER_CMAP,
) -> Figure:
    """Show the gathers of one sample side by side, time downwards, on one symmetric scale.

    Args:
        records: (shots, time, receivers), the survey's shape, or with fewer time samples, evenly spread.
        survey: The acquisition. Default `OPENFWI`.
        shots: Numbers of the shots to show, from 0. Default None, all.
        clip: Percentile of the amplitudes at which colours end, above 0 and up to 100; lower shows weaker
            arrivals. Default 96.
        cmap: Any diverging or grey colour map of matplotlib. Default "gray".

    Returns:
        The figure, one panel per shot.

    Raises:
        ValueError: If the records do not have the survey's shape, or a shot does not exist.
    """
    shown = list(range(survey.shots)) if shots is None else list(shots)
    limit = clip_level(records, survey, clip)
    figure = Figure(figsize=(2.3 * len(shown) + 0.6, 3.9), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, shot in zip(axes, shown, strict=True):
        draw_gather(axis, records, shot, survey, limit, cmap)
        axis.label_outer()
    return figure


def clip_level(records: NDArray[np.floating], survey: Survey, clip: float = GATHER_CLIP) -> float:
    """Amplitude at which the colours of a sample end.

    Args:
        records: (shots, time, receivers).
        survey: The acquisition that they must fit.
        clip: Percentile of the amplitudes. Default 96.

    Returns:
        A positive amplitude, in the unit of the records.

    Raises:
        ValueError: If the records do not have the survey's shape.
    """
    shots, samples, receivers = survey.gathers_shape
    if records.shape[::2] != (shots, receivers) or not 1 <= records.shape[1] <= samples:
        raise ValueError(
            f"gathers must be (shots, time, receivers) = {survey.gathers_shape} in this survey, got {records.shape}."
        )
    return max(float(np.percentile(np.abs(records), clip)), float(np.finfo(np.float32).tiny))


def draw_gather(
    axis: Axes,
    records: NDArray[np.floating],
    shot: int,
    survey: Survey,
    limit: float,
    cmap: str = GATHER_CMAP,
) -> None:
    """Draw one gather: receiver position across, time down, the shot marked at time 0.

    Args:
        axis: Where to draw.
        records: (shots, time, receivers).
        shot: Number of the shot, from 0.
        survey: The acquisition.
        limit: Amplitude at which the colours end.
        cmap: Colour map. Default "gray".

    Raises:
        ValueError: If the shot does not exist.
    """
    if not 0 <= shot < survey.shots:
        raise ValueError(f"shot must be 0 to {survey.shots - 1}, got {shot}.")
    _, unit = length_unit(survey.grid[1] * survey.spacing)
    across = positions(survey.receiver_columns, survey)
    time = np.arange(records.shape[1]) * survey.time_step * -(-survey.samples // records.shape[1])
    # Receivers may stand anywhere along the line, even unevenly: cells around their true positions.
    axis.pcolormesh(across, time, records[shot], cmap=cmap, vmin=-limit, vmax=limit, shading="nearest", rasterized=True)
    axis.set_ylim(survey.samples * survey.time_step, 0)
    source = positions(survey.shot_columns, survey)[shot]
    axis.plot([source], [0], marker="v", color=SHOT_COLOUR, markersize=6, clip_on=False, linestyle="none")
    axis.set(xlabel=f"receiver position ({unit})", ylabel="time (s)", title=f"shot {shot + 1} of {survey.shots}")
    tidy(axis)
