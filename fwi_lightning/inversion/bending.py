"""Layers bent by one shared curve: a profile and the curve are sought instead of every cell.

All interfaces of OpenFWI's CurveVel maps are bent by the same sum of sines, v(z, x) = p(z + s(x)). A start without the
bends, such as a network's answer, lies between the curve and its negative, which explain the first echoes about as
well: no descent finds its way from there. So curves are drawn and tried first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from fwi_lightning.geology.layers import OPENFWI_DEPTH, SHORTEST_PERIOD, draw_curve
from fwi_lightning.inversion.curvature import curvature_along
from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.pursuit import pursue

Array = NDArray[np.float64]

WINDOWS = (0.35, 0.5, 0.7, 1.0)
"""Shares of the record that are explained one after the other."""

CURVES = 300
"""That are drawn and tried."""

AMPLITUDE = (3.0, 12.0)
"""Cells of 70, their sums of amplitudes."""

UNEXPLAINED = 0.01
"""Share of the squared record from which on there is something for a curve to explain."""

KEPT = (6, 2)
"""Of the curves: how many are fitted, and how many of these together with the profile."""

FITS = (5, 4, 3)
"""Steps at most: of a curve alone, of both in the search, of both in each window."""

NODES = 2
"""Cells from one value of the profile to the next."""

REACH = 12
"""Cells that the profile goes on above and below the map."""

UNITS = (5.0, 0.05)
"""m/s and cells: the differences by which derivatives are taken."""

FARTHEST = (500.0, 1.5)
"""m/s and cells: the longest step."""

AMPLE = 3.0
"""Cells: a sine's likely amplitude."""

PRIOR = 0.02
"""The share of the misfit that one sine of that amplitude costs."""

DAMPING = (1e-1, 5.0, 5)
"""First share of the curvature's diagonal, its factor after a step up or down, and attempts."""

FALL = 0.995
"""Share of the misfit that may be left after a step for another one."""

ROUNDS = 8
"""Times that layers and columns are settled in turn."""


@dataclass(frozen=True)
class Bent:
    """A profile and what bends it.

    Attributes:
        nodes: (nodes,), rows of the unbent stack; between them the velocity changes evenly, beyond them not at all.
        profile: (nodes,) in m/s.
        curve: (sines,), cells.
        sines: (sines, width).
    """

    nodes: Array
    profile: Array
    curve: Array
    sines: Array

    def velocity(self, depth: int) -> Array:
        """(depth, width) in m/s."""
        return np.interp(np.arange(depth)[:, None] + self.curve @ self.sines, self.nodes, self.profile)

    def moved(self, change: Array, bounds: tuple[float, float]) -> Bent:
        """With a change of profile and curve, or of the curve alone, added."""
        split = len(change) - len(self.curve)
        profile = self.profile
        if split:
            profile = (profile + change[:split]).clip(*bounds)
        return replace(self, profile=profile, curve=self.curve + change[split:])


def bend(objective: Objective) -> None:
    """Look for bent layers that explain the record; what is found is in the objective.

    Args:
        objective: The misfit.

    Raises:
        Enough: As `Objective`.
    """
    depth, width = objective.survey.grid
    curves = _draw(width, depth)
    bent, searched = _read(objective.start.numpy(), curves, objective.bounds), False
    for window in WINDOWS:
        first = objective if window == WINDOWS[-1] else objective.first(window)
        echo = 0.5 * float((first.weight[:, None] * first.gathers).double().square().mean())
        if not searched and _value(first, bent) > UNEXPLAINED * echo:
            bent, searched = _search(first, bent, curves), True
        bent, _ = _fit(first, bent, True, FITS[2])
        _value(objective, bent)
    _settle(objective, bent)


def _draw(width: int, depth: int) -> Array:
    """Curves as OpenFWI's, (curves, sines)."""
    rng, scale = np.random.default_rng(0), depth / OPENFWI_DEPTH
    sines = _sines(width)
    drawn = [draw_curve(rng, width, scale * rng.uniform(*AMPLITUDE)) for _ in range(CURVES)]
    return np.linalg.lstsq(sines.T, np.stack(drawn).T, rcond=None)[0].T.astype(np.float64)


def _sines(width: int) -> Array:
    """Those that bending curves are sums of, (sines, width)."""
    harmonics = np.arange(1, max(1, round(width / SHORTEST_PERIOD)) + 1)
    angles = 2 * np.pi * harmonics[:, None] * np.arange(width) / width
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _read(velocity: Array, curves: Array, bounds: tuple[float, float]) -> Bent:
    """The bent layers within bounds that are most like a map."""
    depth, width = velocity.shape
    nodes = np.arange(-REACH, depth + REACH, NODES, dtype=np.float64)
    sines = _sines(width)

    def aligned(curve: Array) -> Bent:
        rows = (np.arange(depth)[:, None] + curve @ sines).ravel()
        nearest = np.abs(rows[:, None] - nodes).argmin(axis=1)
        count = np.bincount(nearest, minlength=len(nodes))
        mean = np.bincount(nearest, velocity.ravel(), minlength=len(nodes)) / np.maximum(count, 1)
        return Bent(nodes, np.interp(nodes, nodes[count > 0], mean[count > 0]), curve, sines)

    def unlike(bent: Bent) -> Array:
        return (bent.velocity(depth) - velocity).ravel()

    flat = np.zeros(len(sines))
    best = min((aligned(curve) for curve in [flat, *curves]), key=lambda bent: float(np.square(unlike(bent)).sum()))
    ample = 0.01 * np.abs(unlike(best)).mean() * np.sqrt(velocity.size)

    def total(change: Array) -> Array:
        moved = best.moved(change, bounds)
        return np.concatenate([unlike(moved), ample * moved.curve / AMPLE, 0.01 * np.diff(moved.profile)])

    change = least_squares(total, np.zeros(len(nodes) + len(sines)), x_scale=_units(best, True), max_nfev=20).x
    return best.moved(change, bounds)


def _search(objective: Objective, bent: Bent, curves: Array) -> Bent:
    """The best of curves that are tried, then fitted, then fitted together with the profile."""
    tried = [replace(bent, curve=curve) for curve in curves]
    maps = np.stack([one.velocity(objective.survey.grid[0]) for one in tried])
    best = np.argsort(objective.values(torch.from_numpy(maps)))[: KEPT[0]]
    fitted = [_fit(objective, one, False, FITS[0]) for one in [bent, *(tried[index] for index in best)]]
    fitted.sort(key=lambda found: found[1])
    both = [_fit(objective, one, True, FITS[1]) for one, _ in fitted[: KEPT[1]]]
    return min(both, key=lambda found: found[1])[0]


def _value(objective: Objective, bent: Bent) -> float:
    """The misfit."""
    return objective.value(torch.from_numpy(bent.velocity(objective.survey.grid[0])))


def _units(bent: Bent, whole: bool) -> Array:
    """Of a change: of profile and curve, or of the curve alone."""
    return np.concatenate([np.full(whole * len(bent.nodes), UNITS[0]), np.full(len(bent.curve), UNITS[1])])


def _fit(objective: Objective, bent: Bent, whole: bool, steps: int) -> tuple[Bent, float]:
    """Gauss-Newton steps (Levenberg, 1944; Marquardt, 1963) of profile and curve, or of the curve alone.

    Returns:
        Where they end, and the misfit with the price of the curve.
    """
    depth = objective.survey.grid[0]
    units = _units(bent, whole)
    profile = whole * len(bent.nodes)
    farthest = np.concatenate([np.full(profile, FARTHEST[0]), np.full(len(bent.curve), FARTHEST[1])]) / units
    damping, factor, attempts = DAMPING
    price = PRIOR / AMPLE**2

    def total(bent: Bent, misfit: float, unit: float) -> float:
        return misfit + 0.5 * unit * price * float(bent.curve @ bent.curve)

    reached = _value(objective, bent)
    for _ in range(steps):
        objective.check(len(units) * objective.pace)
        velocity = torch.from_numpy(bent.velocity(depth))
        misfit, gradient = objective.gradient(velocity)
        moves = (bent.moved(row, (-np.inf, np.inf)).velocity(depth) for row in np.diag(units))
        changes = torch.from_numpy(np.stack(list(moves))) - velocity
        matrix = curvature_along(velocity.float(), changes.float(), objective.survey, objective.weight).numpy()
        slope = (changes * gradient).sum(dim=(1, 2)).numpy()
        slope[profile:] += misfit * price * bent.curve * UNITS[1]
        matrix[range(profile, len(units)), range(profile, len(units))] += misfit * price * UNITS[1] ** 2
        diagonal = matrix.diagonal()
        if not diagonal.any():
            break
        for _ in range(attempts):
            damped = matrix + np.diag(damping * diagonal + 1e-6 * diagonal.mean())
            change = -np.linalg.solve(damped, slope)
            change *= min(1.0, float((farthest / np.maximum(np.abs(change), 1e-12)).min()))
            moved = bent.moved(change * units, objective.bounds)
            tried = _value(objective, moved)
            if total(moved, tried, misfit) < total(bent, misfit, misfit):
                damping /= factor
                break
            damping *= factor
        else:
            break
        bent, reached = moved, tried
        if reached > FALL * misfit:
            break
    return bent, total(bent, reached, reached)


def _settle(objective: Objective, bent: Bent) -> None:
    """From evenly changing velocities to layers, and whole cells that each column is moved by."""
    bent = _layers(objective, bent, np.rint(bent.curve @ bent.sines))
    # Between layers the curve is seen more exactly.
    bent = _fit(objective, bent, False, FITS[0])[0]
    shifts = np.rint(bent.curve @ bent.sines)
    for _ in range(ROUNDS):
        before = objective.found.misfit
        bent = _layers(objective, bent, shifts)
        shifts = _shift(objective, bent, shifts)
        if objective.found.misfit > FALL * before:
            break


def _layers(objective: Objective, bent: Bent, shifts: Array) -> Bent:
    """With layers as profile, one value a row, in columns that are moved by whole cells."""
    depth, width = objective.survey.grid
    rows = np.arange(depth)[:, None] + shifts
    nodes = np.arange(rows.min(), rows.max() + 1)
    areas = Areas(torch.from_numpy(rows - rows.min()).long(), torch.zeros(depth, width, dtype=torch.bool))
    values = torch.from_numpy(np.interp(nodes, bent.nodes, bent.profile))
    return replace(bent, nodes=nodes, profile=pursue(objective, areas, values, steps=1).numpy())


def _shift(objective: Objective, bent: Bent, shifts: Array) -> Array:
    """Move single columns up or down by a cell where that explains more of the record."""
    depth, width = objective.survey.grid

    def moved(shifts: Array) -> Array:
        return np.interp(np.arange(depth)[:, None] + shifts, bent.nodes, bent.profile)

    objective.check(2 * width * objective.pace)
    moves = [step * np.eye(width)[column] for column in range(width) for step in (-1, 1)]
    alone = objective.values(torch.from_numpy(np.stack([moved(shifts + move) for move in moves])))
    before = least = objective.value(torch.from_numpy(moved(shifts)))
    for index in np.argsort(alone):
        if alone[index] >= before:
            break
        if (both := objective.value(torch.from_numpy(moved(shifts + moves[index])))) < least:
            shifts, least = shifts + moves[index], both
    return shifts
