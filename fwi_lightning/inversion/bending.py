"""Layers bent by one shared curve or offset by one fault: a profile and the shape are sought instead of every cell.

All interfaces of OpenFWI's CurveVel maps are bent by the same sum of sines, those of its FlatFault_A maps are offset
by one straight fault: v(z, x) = p(z + s(z, x)). A start without the bends, such as a network's answer, lies between the
curve and its negative, which explain the first echoes about as well: no descent finds its way from there. So shapes are
drawn and tried first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from torch import Tensor

from fwi_lightning.geology.layers import OPENFWI_DEPTH, SHORTEST_PERIOD, draw_curve, fill
from fwi_lightning.inversion.curvature import curvature_along
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.whole_cells import Stack, choose_layers, right_of, settle

Array = NDArray[np.float64]

WINDOWS = (0.35, 0.5, 0.7, 1.0)
"""Shares of the record that are explained one after the other."""

CURVES = 300
"""That are drawn and tried."""

AMPLITUDE = (3.0, 12.0)
"""Cells of 70, their sums of amplitudes."""

UNEXPLAINED = 0.01
"""Share of the squared record up to which it counts as explained."""

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

FAULT_UNITS = (0.25, 0.01, 0.1)
"""The same of a fault: columns, columns a row, cells."""

FARTHEST = (500.0, 1.5)
"""m/s and cells: the longest step."""

FAULT_FARTHEST = (2.0, 0.06, 2.0)
"""The same of a fault."""

AMPLE = 3.0
"""Cells: a sine's likely amplitude."""

PRIOR = 0.02
"""The share of the misfit that one sine of that amplitude costs."""

DAMPING = (1e-1, 5.0, 5)
"""First share of the curvature's diagonal, its factor after a step up or down, and attempts."""

FALL = 0.995
"""Share of the misfit that may be left after a step for another one."""

THROWS = (-14.0, -11.0, -8.0, -5.0, 5.0, 8.0, 11.0, 14.0)
"""Cells of 70, of the faults that are tried..."""

LEANS = (-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9)
"""... with the columns that they lean by in each row..."""

APART = 2
"""... and the columns from one to the next."""

FAULTS = 150
"""Of all these, the ones that are simulated: those most like the start."""

BLUR = 0.5
"""Columns over which a fault's throw comes up, so that it has a derivative."""


@dataclass(frozen=True)
class Bent:
    """A profile and what it is moved by.

    Attributes:
        nodes: (nodes,), rows of the unmoved stack; between them the velocity changes evenly, beyond them not at all.
        profile: (nodes,) in m/s.
        shape: (sines,), a curve in cells, or (sines + 3,), with a fault: column at half the depth, columns by which it
            leans with each row, and cells by which what lies to its right shows a deeper part.
        sines: (sines, width).
    """

    nodes: Array
    profile: Array
    shape: Array
    sines: Array

    @property
    def fault(self) -> Array:
        """(3,), or (0,)."""
        return self.shape[len(self.sines) :]

    def curve(self) -> Array:
        """(width,), cells by which each column shows a deeper part."""
        return self.shape[: len(self.sines)] @ self.sines

    def velocity(self, depth: int) -> Array:
        """(depth, width) in m/s."""
        return np.interp(self.rows(depth), self.nodes, self.profile)

    def rows(self, depth: int) -> Array:
        """(depth, width), the row of the unmoved stack that each cell shows."""
        rows = np.arange(depth)[:, None] + self.curve()
        if len(self.fault):
            rows = rows + self.fault[2] * expit(right_of(self.fault, rows.shape) / BLUR)
        return rows

    def moved(self, change: Array, bounds: tuple[float, float]) -> Bent:
        """With a change of profile and shape, or of the shape alone, added."""
        split = len(change) - len(self.shape)
        profile = self.profile
        if split:
            profile = (profile + change[:split]).clip(*bounds)
        return replace(self, profile=profile, shape=self.shape + change[split:])


def bend(objective: Objective, faulted: bool = False) -> bool:
    """Look for bent or faulted layers that explain the record; what is found is in the objective.

    Args:
        objective: The misfit.
        faulted: Look for flat layers that one fault offsets instead of bent ones. Default: bent ones.

    Returns:
        Whether some explain it.

    Raises:
        Enough: As `Objective`.
    """
    bent, tried = _read(objective, objective.start, faulted)
    searched = False
    # What a fault offsets often lies below what the first window sees.
    for window in WINDOWS[1:] if faulted else WINDOWS:
        with objective.within(window) as part:
            if not searched and not _explains(part, _value(part, bent)):
                bent, searched = _search(part, bent, tried), True
                if not _explains(part, _value(part, bent)):
                    return False
            bent, _ = _fit(part, bent, True, FITS[2])
        _value(objective, bent)
    return _settle(objective, bent)


def bend_map(objective: Objective, velocity: Tensor, faulted: bool = False) -> bool:
    """The same without a search, from a map that is nearly right, (depth, width) float64 in m/s."""
    bent, _ = _read(objective, velocity, faulted)
    return _settle(objective, _fit(objective, bent, True, FITS[1])[0])


def _read(objective: Objective, velocity: Tensor, faulted: bool) -> tuple[Bent, list[Bent]]:
    """What is most like a map, and others that may be tried."""
    return (_faults if faulted else _curves)(velocity.numpy(), objective.bounds)


def _explains(objective: Objective, misfit: float) -> bool:
    """Whether a misfit leaves little of the record."""
    return misfit <= UNEXPLAINED * 0.5 * float((objective.weight[:, None] * objective.gathers).double().square().mean())


def _curves(start: Array, bounds: tuple[float, float]) -> tuple[Bent, list[Bent]]:
    """The bent layers that are most like a map, and the same profile with many curves."""
    depth, width = start.shape
    rng, scale = np.random.default_rng(0), depth / OPENFWI_DEPTH
    sines = _sines(width)
    drawn = [draw_curve(rng, width, scale * rng.uniform(*AMPLITUDE)) for _ in range(CURVES)]
    curves = np.linalg.lstsq(sines.T, np.stack(drawn).T, rcond=None)[0].T.astype(np.float64)
    read = [_aligned(start, curve, sines) for curve in [np.zeros(len(sines)), *curves]]
    best = min(read, key=lambda bent: _unlike(bent, start))
    ample = 0.01 * np.abs(best.velocity(depth) - start).mean() * np.sqrt(start.size)

    def total(change: Array) -> Array:
        moved = best.moved(change, bounds)
        unlike = (moved.velocity(depth) - start).ravel()
        return np.concatenate([unlike, ample * moved.shape / AMPLE, 0.01 * np.diff(moved.profile)])

    units = _units(best, True)
    best = best.moved(least_squares(total, np.zeros(len(units)), x_scale=units, max_nfev=20).x, bounds)
    return best, [replace(best, shape=curve) for curve in curves]


def _faults(start: Array, bounds: tuple[float, float]) -> tuple[Bent, list[Bent]]:
    """The faulted flat layers that are most like a map."""
    depth, width = start.shape
    sines, scale = np.zeros((0, width)), depth / OPENFWI_DEPTH
    faults = product(range(APART, width - APART + 1, APART), LEANS, THROWS)
    read = [_aligned(start, np.array([middle, lean, scale * throw]), sines) for middle, lean, throw in faults]
    read.sort(key=lambda bent: _unlike(bent, start))
    return read[0], read[1 : FAULTS + 1]


def _sines(width: int) -> Array:
    """Those that bending curves are sums of, (sines, width)."""
    harmonics = np.arange(1, max(1, round(width / SHORTEST_PERIOD)) + 1)
    angles = 2 * np.pi * harmonics[:, None] * np.arange(width) / width
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _aligned(velocity: Array, shape: Array, sines: Array) -> Bent:
    """With the profile that is most like a map where it is moved so."""
    depth = len(velocity)
    nodes = np.arange(-REACH, depth + REACH, NODES, dtype=np.float64)
    bent = Bent(nodes, nodes, shape, sines)
    nearest = np.rint((bent.rows(depth) - nodes[0]) / NODES).clip(0, len(nodes) - 1).astype(int).ravel()
    count = np.bincount(nearest, minlength=len(nodes))
    mean = np.bincount(nearest, velocity.ravel(), minlength=len(nodes)) / np.maximum(count, 1)
    return replace(bent, profile=np.interp(nodes, nodes[count > 0], mean[count > 0]))


def _unlike(bent: Bent, velocity: Array) -> float:
    return float(np.square(bent.velocity(len(velocity)) - velocity).sum())


def _search(objective: Objective, bent: Bent, others: list[Bent]) -> Bent:
    """The best of all that are tried, then fitted, then fitted together with the profile."""
    maps = np.stack([one.velocity(objective.survey.grid[0]) for one in others])
    best = np.argsort(objective.values(torch.from_numpy(maps)))[: KEPT[0]]
    fitted = [_fit(objective, one, False, FITS[0]) for one in [bent, *(others[index] for index in best)]]
    fitted.sort(key=lambda found: found[1])
    both = [_fit(objective, one, True, FITS[1]) for one, _ in fitted[: KEPT[1]]]
    return min(both, key=lambda found: found[1])[0]


def _value(objective: Objective, bent: Bent) -> float:
    """The misfit."""
    return objective.value(torch.from_numpy(bent.velocity(objective.survey.grid[0])))


def _units(bent: Bent, whole: bool) -> Array:
    """Of a change: of profile and shape, or of the shape alone."""
    return _each(bent, whole, UNITS, FAULT_UNITS)


def _each(bent: Bent, whole: bool, layers: tuple[float, float], fault: tuple[float, float, float]) -> Array:
    """A number for each value of the profile, each sine and the fault's three."""
    parts = np.full(whole * len(bent.nodes), layers[0]), np.full(len(bent.sines), layers[1]), fault[: len(bent.fault)]
    return np.concatenate(parts)


def _fit(objective: Objective, bent: Bent, whole: bool, steps: int) -> tuple[Bent, float]:
    """Gauss-Newton steps (Levenberg, 1944; Marquardt, 1963) of profile and curve, or of the curve alone.

    Returns:
        Where they end, and the misfit with the price of the curve.
    """
    depth = objective.survey.grid[0]
    units = _units(bent, whole)
    farthest = _each(bent, whole, FARTHEST, FAULT_FARTHEST) / units
    sines = slice(len(units) - len(bent.shape), len(units) - len(bent.fault))
    damping, factor, attempts = DAMPING
    price = PRIOR / AMPLE**2

    def total(bent: Bent, misfit: float, unit: float) -> float:
        return misfit + 0.5 * unit * price * float(np.square(bent.shape[: len(bent.sines)]).sum())

    reached = _value(objective, bent)
    for _ in range(steps):
        objective.check(len(units) * objective.pace)
        velocity = torch.from_numpy(bent.velocity(depth))
        misfit, gradient = objective.gradient(velocity)
        moves = (bent.moved(row, (-np.inf, np.inf)).velocity(depth) for row in np.diag(units))
        changes = torch.from_numpy(np.stack(list(moves))) - velocity
        matrix = curvature_along(velocity.float(), changes.float(), objective.survey, objective.weight).numpy()
        slope = (changes * gradient).sum(dim=(1, 2)).numpy()
        slope[sines] += misfit * price * bent.shape[: len(bent.sines)] * UNITS[1]
        matrix.flat[:: len(units) + 1][sines] += misfit * price * UNITS[1] ** 2
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


def _settle(objective: Objective, bent: Bent) -> bool:
    """From evenly changing velocities to layers that are moved by whole cells; whether these explain the record."""
    stack = _stack(bent)
    shown = np.arange((rows := stack.rows(objective.survey.grid[0])).min(), rows.max() + 1)
    stack = choose_layers(objective, stack, np.interp(shown, bent.nodes, bent.profile))
    # Between layers the shape is seen more exactly.
    layered = fill(shown, stack.interfaces, stack.values)
    bent, _ = _fit(objective, replace(bent, nodes=shown, profile=layered), False, FITS[0])
    stack = replace(_stack(bent), interfaces=stack.interfaces, values=stack.values)
    stack = settle(objective, choose_layers(objective, stack))
    return _explains(objective, objective.value(torch.from_numpy(stack.velocity(objective.survey.grid[0]))))


def _stack(bent: Bent) -> Stack:
    """Whole cells, without layers."""
    fault = bent.fault.copy()
    fault[2:] = np.rint(fault[2:])
    return Stack(np.zeros(0), np.zeros(1), np.rint(bent.curve()), fault)
