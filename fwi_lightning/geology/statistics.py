"""Numbers that describe velocity maps, recorded or drawn, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.errors import UserError
from fwi_lightning.geology.layers import SHORTEST_PERIOD

STATISTICS: dict[str, str] = {
    "min": "lowest velocity, m/s",
    "max": "highest velocity, m/s",
    "mean": "mean velocity, m/s",
    "whole_share": "share of the cells that hold a whole number",
    "distinct_values": "different values in the map",
    "surface_values": "different values in the first row",
    "edge_values_shared": "values that the first and the last column have in common",
    "layers_per_column": "layers met going down, mean over the columns",
    "layer_thickness": "cells down to the next layer, mean",
    "thin_layers": "5th percentile of the same",
    "thick_layers": "95th percentile of the same",
    "jump": "size of the velocity step between two layers in a column, m/s, mean",
    "drop_share": "share of these steps at which velocity falls with depth",
    "monotone_columns": "share of the columns in which velocity never falls with depth",
    "lateral_breaks": "share of the side-by-side cells that differ by more than 100 m/s",
    "throw": "vertical offset at the one fault that explains most, cells",
    "vertical_slope": "growth of the rows' mean with depth, m/s per cell",
    "vertical_gradient": "difference of cells above each other, m/s per cell, rms",
    "horizontal_gradient": "difference of cells side by side, m/s per cell, rms",
    "residual_std": "standard deviation about the straight line in depth, m/s",
    "vertical_length": "lag at which the residual's correlation falls to exp(-1/2) along depth, cells",
    "horizontal_length": "the same along the line, cells",
}
"""Names of the statistics, in the order of the tables, and what each says."""

MOST_LAYER_VALUES = 64
"""A map with more different values than this is a texture, not layers: what counts layers is NaN there."""

BREAK = 100.0
"""Difference between neighbouring cells that counts as a lateral break, m/s."""


def statistics(velocity: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Describe each of a stack of velocity maps by numbers.

    Args:
        velocity: (N, 1, depth, width) or (N, depth, width), m/s; recorded or drawn.

    Returns:
        Name -> (N,) float64, the names and units those of `STATISTICS`. NaN where a number means nothing: layers of a
        texture, the throw of two unrelated stacks, anything of a map that holds NaN or infinity.

    Raises:
        UserError: If the array is not a stack of maps of at least 2 x 2 cells.
    """
    maps = _as_maps(velocity)
    finite = np.isfinite(maps).all(axis=(1, 2))
    table = {name: np.full(len(maps), np.nan) for name in STATISTICS}
    for index in np.flatnonzero(finite):
        for name, value in _describe(maps[index]).items():
            table[name][index] = value
    return table


def summarise(maps: Mapping[str, NDArray[np.floating]]) -> list[dict[str, str | float]]:
    """Reduce the statistics of several families to a row each.

    Args:
        maps: Name of a family -> maps as `statistics` takes them.

    Returns:
        A row per family: `family`, `maps` (their number), then for each name of `STATISTICS` its mean under that name
        and its standard deviation under `<name>_std`, over the maps where it is not NaN (NaN if there is none).

    Raises:
        UserError: As `statistics`.
    """
    rows: list[dict[str, str | float]] = []
    for family, stack in maps.items():
        row: dict[str, str | float] = {"family": family, "maps": len(stack)}
        for name, values in statistics(stack).items():
            known = values[np.isfinite(values)]
            row[name] = float(known.mean()) if known.size else float("nan")
            row[f"{name}_std"] = float(known.std()) if known.size else float("nan")
        rows.append(row)
    return rows


def _as_maps(velocity: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the maps as (N, depth, width) float64."""
    maps = np.asarray(velocity)
    if maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if maps.ndim != 3 or min(maps.shape[1:]) < 2:
        raise UserError(
            "velocity must be (N, 1, depth, width) or (N, depth, width) with at least 2 x 2 cells, "
            f"got shape {np.shape(velocity)}."
        )
    return maps.astype(np.float64)


def _describe(velocity: NDArray[np.float64]) -> dict[str, float]:
    """All statistics of one finite map; what is missing has no meaning for it."""
    steps = np.diff(velocity, axis=0)
    across = np.diff(velocity, axis=1)
    row_means = velocity.mean(axis=1)
    slope = float(np.polyfit(np.arange(len(row_means)), row_means, 1)[0])
    trend = slope * (np.arange(len(row_means)) - (len(row_means) - 1) / 2)
    residual = velocity - velocity.mean() - trend[:, None]
    values = np.unique(velocity)
    found = {
        "min": float(values[0]),
        "max": float(values[-1]),
        "mean": float(velocity.mean()),
        "whole_share": float(np.mean(velocity == np.rint(velocity))),
        "distinct_values": float(values.size),
        "monotone_columns": float(np.mean((steps >= 0).all(axis=0))),
        "lateral_breaks": float(np.mean(np.abs(across) > BREAK)),
        "vertical_slope": slope,
        "vertical_gradient": _rms(steps),
        "horizontal_gradient": _rms(across),
        "residual_std": float(residual.std()),
        "vertical_length": _correlation_length(residual),
        "horizontal_length": _correlation_length(residual.T),
    }
    if values.size <= MOST_LAYER_VALUES:
        found |= _describe_layers(velocity, steps)
    return found


def _describe_layers(velocity: NDArray[np.float64], steps: NDArray[np.float64]) -> dict[str, float]:
    """Statistics that need areas of equal velocity."""
    thickness = _thicknesses(steps)
    jumps = steps[steps != 0]
    edges = np.intersect1d(velocity[:, 0], velocity[:, -1])
    return {
        "surface_values": float(np.unique(velocity[0]).size),
        "edge_values_shared": float(edges.size),
        "layers_per_column": thickness.size / velocity.shape[1],
        "layer_thickness": float(thickness.mean()),
        "thin_layers": float(np.percentile(thickness, 5)),
        "thick_layers": float(np.percentile(thickness, 95)),
        "jump": float(np.abs(jumps).mean()) if jumps.size else float("nan"),
        "drop_share": float(np.mean(jumps < 0)) if jumps.size else float("nan"),
        "throw": _throw(velocity) if edges.size else float("nan"),
    }


def _thicknesses(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Heights in cells of all vertical runs of equal velocity, column after column."""
    depth, width = steps.shape[0] + 1, steps.shape[1]
    begins = np.zeros((width, depth), bool)
    begins[:, 0] = True
    begins[:, 1:] = (steps != 0).T
    # columns laid end to end: every column begins a run, so that runs never reach into the next one
    return np.diff(np.flatnonzero(begins), append=begins.size)


def _throw(velocity: NDArray[np.float64]) -> float:
    """Estimate the vertical offset at the fault that explains most of a stack's shape, in cells.

    If a stack moves down by s cells, its first layer growing and its last shrinking, the sum of a column changes by
    s * (first - last). That gives the depth of the stack in every column, whatever lies between. To it are fitted the
    bending curves of the Curve families and one ramp: a tilted fault spreads its offset over a few columns. Exact to
    rounding for a whole stack, flat or so bent; too small where layers leave the map at the top or the bottom.
    """
    first, last = float(np.median(velocity[0])), float(np.median(velocity[-1]))
    if abs(first - last) < 1.0:
        return float("nan")
    position = velocity.sum(axis=0) / (first - last)
    ramps = _ramps(velocity.shape[1])
    # ramps are orthogonal to all bending curves and of unit rise, so one product each is the whole fit
    strength = np.einsum("rx,rx->r", ramps, ramps)
    products = ramps @ position
    best = int(np.argmax(products**2 / strength))
    return float(abs(products[best]) / strength[best])


@lru_cache(maxsize=8)
def _ramps(width: int) -> NDArray[np.float64]:
    """Offsets by one cell over 0 to 14 columns, anywhere on the line, less their part in the bending curves.

    Args:
        width: Columns of the map.

    Returns:
        (ramps, width) float64.
    """
    columns = np.arange(width)
    harmonics = np.arange(1, max(1, round(width / SHORTEST_PERIOD)) + 1)
    angles = 2 * np.pi * harmonics * columns[:, None] / width
    curves = np.hstack([np.ones((width, 1)), np.sin(angles), np.cos(angles)])
    basis, _ = np.linalg.qr(curves)
    begin, spread = np.meshgrid(np.arange(2, width - 2), np.arange(15), indexing="ij")
    inside = begin + spread <= width - 2
    begin, spread = begin[inside][:, None], spread[inside][:, None]
    ramps = np.clip((columns - begin + 1) / (spread + 1), 0.0, 1.0)
    return ramps - (ramps @ basis) @ basis.T


def _correlation_length(residual: NDArray[np.float64]) -> float:
    """Lag along the first axis at which correlation falls to exp(-1/2): the length of a squared exponential.

    Returns:
        Cells, between lags by straight lines; NaN for a constant map or if half the map is too short.
    """
    variance = float(np.mean(residual**2))
    if variance < 1e-9:
        return float("nan")
    level, previous = np.exp(-0.5), 1.0
    for lag in range(1, len(residual) // 2 + 1):
        correlation = float(np.mean(residual[lag:] * residual[:-lag])) / variance
        if correlation <= level:
            return lag - 1 + (previous - level) / (previous - correlation)
        previous = correlation
    return float("nan")


def _rms(values: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))
