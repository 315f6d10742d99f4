"""One answer of predict.py whole: maps, error, uncertainty, records and their difference, profiles, the refinement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from fwi_lightning.figures.gathers import clip_level, draw_gather
from fwi_lightning.figures.inversion import PROFILE_PLACES, bar_below, draw_profiles, mark_columns, without_ylabels
from fwi_lightning.figures.panels import INK, as_map, draw_cells, draw_error, draw_velocity, error_limit, place, tidy
from fwi_lightning.survey import OPENFWI, Survey

UNCERTAINTY_CMAP = "magma_r"
"""Colour map of uncertainty: pale where sure."""

SMALLEST = 1e-7
"""Misfit that an exact answer is drawn at: single precision tells no less."""

FEW = 20
"""Steps of a refinement below which each is marked: a single one has no line."""

LEFT, TOP, SIDE, STEP = 0.65, 0.85, 2.0, 2.24  # inches: the row of maps
SECOND, TALL = 4.25, 2.6  # the row of records and profiles


@dataclass(frozen=True)
class Answered:
    """What is drawn of a sample.

    Attributes:
        gathers: (shots, time, receivers) as recorded.
        velocity: (depth, width) or (1, depth, width), the answer, m/s.
        before: The same shape: the network's map, where later steps have changed it. Default None.
        truth: The same shape, m/s. Default None.
        uncertainty: The same shape, m/s. Default None.
        record: Simulated over the answer, like the gathers. Default None.
        history: (steps, 2): seconds and misfit of a refinement. Default None.
    """

    gathers: NDArray[np.floating]
    velocity: NDArray[np.floating]
    before: NDArray[np.floating] | None = None
    truth: NDArray[np.floating] | None = None
    uncertainty: NDArray[np.floating] | None = None
    record: NDArray[np.floating] | None = None
    history: NDArray[np.floating] | None = None


def answer(sample: Answered, survey: Survey = OPENFWI, title: str = "", facts: str = "") -> Figure:
    """Draw an answer; what is not known is left out.

    Args:
        sample: What to draw.
        survey: The acquisition. Default `OPENFWI`.
        title: Line above the figure. Default none.
        facts: A second line, smaller. Default none.

    Returns:
        The figure. Its axes, in order: the maps (network, answer, truth, error, uncertainty), three gathers (with a
        record one shot recorded, simulated, and their difference; else three shots), three profiles, the history, then
        colour bars.

    Raises:
        ValueError: If shapes do not fit each other or the survey.
    """
    figure = Figure(figsize=(12, SECOND + TALL + 0.6))
    maps = {
        "network": sample.before,
        "answer": sample.velocity,
        "truth": sample.truth,
        "error": None if sample.truth is None else as_map(sample.velocity, "answer") - as_map(sample.truth, "truth"),
        "uncertainty": sample.uncertainty,
    }
    shown = {name: as_map(values, name) for name, values in maps.items() if values is not None}
    if len({values.shape for values in shown.values()}) > 1:
        raise ValueError(f"maps differ in shape: { {name: values.shape for name, values in shown.items()} }.")
    axes = {name: place(figure, LEFT + STEP * n, TOP, SIDE, SIDE) for n, name in enumerate(shown)}
    gathers = [place(figure, LEFT + 1.92 * n, SECOND, 1.78, TALL) for n in range(3)]
    wide, step = (1.2, 1.35) if sample.history is None else (0.8, 0.9)
    wells = [place(figure, 7.2 + step * n, SECOND, wide, TALL) for n in range(3)]
    if sample.history is not None:
        _draw_history(place(figure, 10.5, SECOND, 1.4, TALL), sample.history)
    columns = [round(share * (shown["answer"].shape[1] - 1)) for share in PROFILE_PLACES]
    _draw_maps(figure, axes, shown, columns, survey)
    _draw_records(gathers, sample, survey)
    draw_profiles(wells, columns, shown["answer"], shown.get("truth"), survey)
    figure.suptitle(title, fontsize=12, color=INK, x=LEFT / 12, y=0.988, ha="left", va="top", fontweight="bold")
    height = figure.get_size_inches()[1]
    figure.text(LEFT / 12, 1 - 0.34 / height, facts, fontsize=9.5, color=INK, ha="left", va="top")
    return figure


def _draw_maps(
    figure: Figure,
    axes: dict[str, Axes],
    shown: dict[str, NDArray[np.floating]],
    columns: list[int],
    survey: Survey,
) -> None:
    """The row of maps and its colour bars."""
    velocities = [name for name in ("network", "answer", "truth") if name in shown]
    for name in velocities:
        image = draw_velocity(axes[name], shown[name], survey)
    bar_below(figure, [axes[name] for name in velocities], image, "velocity (m/s)")
    titles = {name: {"network": "the network's map", "truth": "true velocity"}.get(name, name) for name in shown}
    if "error" in shown:
        limit = error_limit(shown["error"])
        image = draw_error(axes["error"], shown["error"], survey, limit)
        bar_below(figure, [axes["error"]], image, "answer - truth (m/s)", extend="both")
        titles["error"] = f"error: MAE {np.abs(shown['error']).mean():.0f} m/s"
    if "uncertainty" in shown:
        top = error_limit(shown["uncertainty"])
        image = draw_cells(axes["uncertainty"], shown["uncertainty"], survey, UNCERTAINTY_CMAP, (0, top))
        bar_below(figure, [axes["uncertainty"]], image, "68 % of errors within (m/s)")
    for shown_name, axis in axes.items():
        axis.set_title(titles[shown_name])
        mark_columns(axis, columns, survey)
        tidy(axis)
    without_ylabels(list(axes.values())[1:])


def _draw_records(axes: list[Axes], sample: Answered, survey: Survey) -> None:
    """One shot recorded, simulated and the difference on one scale; without a record, three shots."""
    limit = clip_level(sample.gathers, survey)
    if sample.record is None:
        shots = [0, survey.shots // 2, survey.shots - 1]
        for axis, shot in zip(axes, shots, strict=True):
            draw_gather(axis, sample.gathers, shot, survey, limit)
    else:
        shot = survey.shots // 2
        panels = {
            f"recorded, shot {shot + 1}": sample.gathers,
            "simulated": sample.record,
            "difference": sample.gathers - sample.record,
        }
        for axis, (name, values) in zip(axes, panels.items(), strict=True):
            draw_gather(axis, values, shot, survey, limit)
            axis.set_title(name)
            tidy(axis)
    without_ylabels(axes[1:])


def _draw_history(axis: Axes, history: NDArray[np.floating]) -> None:
    """Least misfit so far against time of a refinement; what was only tried does not show."""
    least = np.minimum.accumulate(history[:, 1]).clip(SMALLEST)
    axis.semilogy(history[:, 0], least, color="#1f6fb4", linewidth=1.3, marker="." if len(history) < FEW else "")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if least[0] < 100 * least[-1] else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda misfit, _: f"{100 * misfit:g} %"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel="refinement (s)", title="misfit")
    axis.grid(linewidth=0.3, color="#bbbbbb")
    tidy(axis)
