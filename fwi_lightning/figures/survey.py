"""The acquisition: where shots and receivers stand over the grid, and which wavelet is sent."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fwi_lightning.figures.curves import MODEL_COLOUR
from fwi_lightning.figures.panels import INK, SHOT_COLOUR, length_unit, positions, tidy
from fwi_lightning.survey import OPENFWI, Survey

RECEIVER_COLOUR = MODEL_COLOUR

MOST_NAMED = 8
"""Shots up to which the column of each is written."""


def acquisition(survey: Survey = OPENFWI) -> Figure:
    """Show the grid with shots and receivers, the wavelet, and its spectrum.

    Args:
        survey: The acquisition. Default `OPENFWI`.

    Returns:
        The figure: grid, wavelet, spectrum.
    """
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    ground, pulse, spectrum = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    _draw_ground(ground, survey)
    _draw_wavelet(pulse, spectrum, survey)
    for axis in (ground, pulse, spectrum):
        tidy(axis)
    return figure


def _draw_ground(axis: Axes, survey: Survey) -> None:
    """The grid every ten cells, shots and receivers at their depth."""
    depth, width = survey.grid
    scale, unit = length_unit(width * survey.spacing)
    step = survey.spacing / scale
    axis.set(xlim=(0, width * step), ylim=(depth * step, 0))
    axis.set_aspect("equal" if width <= 2 * depth else "auto")
    axis.hlines(np.arange(0, depth + 1, 10) * step, 0, width * step, color="#dddddd", linewidth=0.5)
    axis.vlines(np.arange(0, width + 1, 10) * step, 0, depth * step, color="#dddddd", linewidth=0.5)
    receivers, shots = positions(survey.receiver_columns, survey), positions(survey.shot_columns, survey)
    deep = np.full(len(receivers), (survey.receiver_row + 0.5) * step)
    label = f"{survey.receivers} receivers in row {survey.receiver_row}"
    axis.plot(receivers, deep, ".", color=RECEIVER_COLOUR, markersize=3, label=label)
    named = survey.shots <= MOST_NAMED
    label = f"{survey.shots} shot{'s' if survey.shots > 1 else ''} in row {survey.shot_row}"
    label += f", column{'s' if survey.shots > 1 else ''} as numbered" if named else ""
    deep = np.full(len(shots), (survey.shot_row + 0.5) * step)
    axis.plot(shots, deep, "v", color=SHOT_COLOUR, markersize=8, clip_on=False, label=label)
    if named:
        for place, column in zip(shots, survey.shot_columns, strict=True):
            under = (place, deep[0])
            axis.annotate(f"{column}", under, (0, -8), textcoords="offset points", ha="center", va="top", fontsize=8)
    cells = f"grid of {depth} x {width} cells of {survey.spacing:g} m"
    axis.set(xlabel=f"position ({unit})", ylabel=f"depth ({unit})", title=cells)
    axis.legend(loc="center", fontsize=8, frameon=False, labelcolor=INK)


def _draw_wavelet(pulse: Axes, spectrum: Axes, survey: Survey) -> None:
    """The wavelet while it lasts, and its amplitude spectrum up to where nothing is left."""
    wavelet = survey.wavelet()
    length = min(int(np.count_nonzero(wavelet)) + 1, len(wavelet))
    time = np.arange(len(wavelet)) * survey.time_step
    pulse.plot(time[:length] * 1000, wavelet[:length], color=MODEL_COLOUR, linewidth=1.6)
    pulse.axhline(0, color="#bbbbbb", linewidth=0.5)
    record = f"{survey.samples} samples of {survey.time_step * 1000:g} ms"
    pulse.set(xlabel="time (ms)", title=f"wavelet; records of {record}", xlim=(0, time[length - 1] * 1000))
    padded = 8 * len(wavelet)
    amplitude = np.abs(np.fft.rfft(wavelet, padded))
    frequency = np.fft.rfftfreq(padded, survey.time_step)
    spectrum.fill_between(frequency, amplitude / amplitude.max(), color=MODEL_COLOUR, alpha=0.25, linewidth=0)
    spectrum.plot(frequency, amplitude / amplitude.max(), color=MODEL_COLOUR, linewidth=1.6)
    spectrum.axvline(survey.frequency, color=SHOT_COLOUR, linewidth=1, linestyle="--")
    title = f"its spectrum: Ricker, {survey.frequency:g} Hz"
    spectrum.set(xlabel="frequency (Hz)", title=title, xlim=(0, 4 * survey.frequency), ylim=(0, 1.05))
