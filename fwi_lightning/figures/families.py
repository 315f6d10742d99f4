"""What tells one family from another: velocity and boundaries along depth, spectra, a sample of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fwi_lightning.figures.curves import MODEL_COLOUR
from fwi_lightning.figures.gathers import clip_level, draw_gather
from fwi_lightning.figures.panels import INK, colour_bar, draw_velocity, frame_only, length_unit, place, tidy
from fwi_lightning.figures.style import VELOCITY_RANGE
from fwi_lightning.survey import OPENFWI, Survey

BOUNDARY_COLOUR = "#f08c00"
BOUNDARY_ALPHA, SPREAD_ALPHA = 0.45, 0.22
COLUMNS = 5
"""Families beside each other."""

FAINTEST = 1e-3
"""Least amplitude of a spectrum that is shown, relative to its peak."""

SIZE, GAP, LEFT, RIGHT, HEADING = 2.05, 0.06, 0.35, 0.85, 0.34  # inches: panels, between them, around them


@dataclass(frozen=True)
class Profile:
    """How a family's velocity goes with depth.

    Attributes:
        mean: (depth,) m/s.
        spread: (depth,) standard deviation, m/s.
        boundaries: (depth,) share of the cells of a row that lie at a boundary.
    """

    mean: NDArray[np.floating]
    spread: NDArray[np.floating]
    boundaries: NDArray[np.floating]


def depth_profiles(profiles: Mapping[str, Profile], survey: Survey = OPENFWI) -> Figure:
    """Show mean velocity, its spread, and the density of boundaries along depth, a panel for each family.

    Args:
        profiles: Name of a family -> its profile.
        survey: Gives the spacing. Default `OPENFWI`.

    Returns:
        The figure: in each row of families, velocity and boundaries side by side.

    Raises:
        ValueError: If there is no family.
    """
    rows = _rows_of(profiles, "depth_profiles")
    figure = Figure(figsize=(12, 2.75 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True)
    most = 1.05 * max(0.05, *(float(profile.boundaries.max()) for profile in profiles.values()))
    low = min(VELOCITY_RANGE[0], *(float((profile.mean - profile.spread).min()) for profile in profiles.values()))
    high = max(VELOCITY_RANGE[1], *(float((profile.mean + profile.spread).max()) for profile in profiles.values()))
    for axis, (name, profile) in zip(grid.flat, profiles.items(), strict=False):
        _draw_profile(axis, profile, survey, most)
        axis.set(title=name, xlim=(low - 50, high + 50))
        tidy(axis)
    for axis in grid.flat[len(profiles) :]:
        axis.set_visible(False)
    _, unit = length_unit(survey.grid[0] * survey.spacing)
    grid[0, 0].invert_yaxis()  # shared by all
    for axis in grid[:, 0]:
        axis.set_ylabel(f"depth ({unit})", fontsize=8, color=INK)
    handles = [
        Line2D([], [], color=MODEL_COLOUR, label="mean velocity (m/s)"),
        Patch(color=MODEL_COLOUR, alpha=SPREAD_ALPHA, label="one standard deviation"),
        Patch(color=BOUNDARY_COLOUR, alpha=BOUNDARY_ALPHA, label=f"cells at a boundary (full width: {most:.0%})"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _rows_of(families: Mapping[str, object], what: str) -> int:
    if not families:
        raise ValueError(f"{what} needs at least one family.")
    return -(-len(families) // COLUMNS)


def _draw_profile(axis: Axes, profile: Profile, survey: Survey, most: float) -> None:
    """Velocity along the lower axis; boundaries as bars from the left side, on a scale of their own."""
    scale, _ = length_unit(len(profile.mean) * survey.spacing)
    depth = (np.arange(len(profile.mean)) + 0.5) * survey.spacing / scale
    axis.plot(profile.mean, depth, color=MODEL_COLOUR, linewidth=1.6, zorder=3)
    around = (profile.mean - profile.spread, profile.mean + profile.spread)
    axis.fill_betweenx(depth, *around, color=MODEL_COLOUR, alpha=SPREAD_ALPHA, linewidth=0, zorder=2)
    twin = axis.twiny()
    twin.fill_betweenx(depth, profile.boundaries, color=BOUNDARY_COLOUR, alpha=BOUNDARY_ALPHA, linewidth=0, step="mid")
    twin.set(xlim=(0, most), xticks=[])
    twin.spines[:].set_visible(False)
    axis.set_zorder(twin.get_zorder() + 1)
    axis.patch.set_visible(False)
    axis.grid(linewidth=0.3, color="#cccccc")


def spectra(
    frequency: NDArray[np.floating], amplitudes: Mapping[str, NDArray[np.floating]], survey: Survey = OPENFWI
) -> Figure:
    """Show the mean amplitude spectrum of each family's traces beside that of the wavelet.

    Args:
        frequency: (frequencies,) Hz.
        amplitudes: Name of a family -> (frequencies,), relative to the peak.
        survey: Gives the wavelet. Default `OPENFWI`.

    Returns:
        The figure: on a linear scale and on a logarithmic one.

    Raises:
        ValueError: If there is no family.
    """
    _rows_of(amplitudes, "spectra")
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    wavelet = np.abs(np.fft.rfft(survey.wavelet()))
    for axis in (linear, logarithmic):
        axis.plot(frequency, wavelet / wavelet.max(), color=INK, linewidth=1.2, linestyle="--", label="wavelet")
        for number, (name, amplitude) in enumerate(amplitudes.items()):
            axis.plot(frequency, amplitude, color=f"C{number % 10}", linewidth=1.1, label=name)
        axis.set(xlabel="frequency (Hz)", xlim=(0, min(float(frequency[-1]), 4 * survey.frequency)))
        axis.grid(linewidth=0.3, color="#bbbbbb")
        tidy(axis)
    linear.set(ylim=(0, 1.05), ylabel="amplitude / peak")
    logarithmic.set(yscale="log", ylim=(FAINTEST, 1.5))
    handles, names = linear.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8, frameon=False)
    return figure


@dataclass(frozen=True)
class Shown:
    """A sample to show.

    Attributes:
        name: What to write above it.
        gathers: (shots, time, receivers).
        velocity: (depth, width) in m/s, or None without labels.
    """

    name: str
    gathers: NDArray[np.floating]
    velocity: NDArray[np.floating] | None


def samples(shown: Sequence[Shown], survey: Survey = OPENFWI) -> Figure:
    """Show samples: each one's map, and below it the gather of one shot.

    Args:
        shown: The samples, five to a row.
        survey: The acquisition. Default `OPENFWI`.

    Returns:
        The figure: the colours of a gather are those of its own amplitudes. Axes in order: map and gather of the first
        sample, and so on, then the colour bar of velocity.

    Raises:
        ValueError: If there is no sample, or shapes do not fit the survey.
    """
    rows = _rows_of({str(number): sample for number, sample in enumerate(shown)}, "samples")
    labelled = any(sample.velocity is not None for sample in shown)
    tall = SIZE * survey.grid[0] / survey.grid[1] if survey.grid[1] <= 2 * survey.grid[0] else SIZE / 2
    height = HEADING + labelled * (tall + GAP) + SIZE + 0.12
    figure = Figure(figsize=(LEFT + COLUMNS * (SIZE + GAP) + RIGHT, rows * height))
    shot = survey.shots // 2
    bar = None
    for number, sample in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        left, top = LEFT + column * (SIZE + GAP), row * height + HEADING
        first = place(figure, left, top, SIZE, tall if labelled else SIZE)
        if labelled:
            if sample.velocity is None:
                first.text(0.5, 0.5, "no velocity", transform=first.transAxes, ha="center", va="center", color=INK)
            else:
                bar = draw_velocity(first, sample.velocity, survey)
                first.set_aspect("auto")
            frame_only(first)
        gather = place(figure, left, top + tall + GAP, SIZE, SIZE) if labelled else first
        draw_gather(gather, sample.gathers, shot, survey, clip_level(sample.gathers, survey))
        frame_only(gather)
        gather.set_title("")
        first.set_title(sample.name, fontsize=10.5, color=INK, pad=4)
        if column == 0:
            first.set_ylabel("velocity" if labelled else "", fontsize=10, color=INK)
            gather.set_ylabel(f"shot {shot + 1} of {survey.shots}", fontsize=10, color=INK)
    if bar is not None:
        right = LEFT + min(len(shown), COLUMNS) * (SIZE + GAP) + 0.04
        colour_bar(place(figure, right, HEADING, 0.13, tall), bar, "velocity (m/s)")
    return figure
