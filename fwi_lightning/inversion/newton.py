"""Gauss-Newton steps of the waveform inversion with a prior whose weight follows the misfit."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fwi_lightning.inversion.curvature import FEW, gauss_newton_matrix
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.priors import Prior
from fwi_lightning.inversion.slowness import stretch, to_slowness, to_velocity

REWEIGHTED = 3
"""Times that the quadratic above the prior is drawn anew within a step; each costs a factorisation."""

SHORTER, SHORTEST = 0.4, 0.06
"""Factor of a step that has not lowered the objective, and the shortest that is tried."""

STIFFER = (10.0, 3)
"""Factor of the damping where the whole step does not lower it, and attempts before shorter ones are tried."""

DAMPING = (1e-7, 1e-2, 1.0)
"""Least, first and greatest share of the curvature's diagonal added to it (Levenberg, 1944; Marquardt, 1963)."""

ROUNDING = {torch.float32: 3e-6, torch.float64: 1e-12}
"""Added to the diagonal, scaled to 1, so that a matrix of that precision can be factorised."""

NEAR = 0.004
"""Relative rms residual below which steps follow; further off each needs its own matrix. Not for quadratic priors."""

SLOW, LATELY = 0.85, 5
"""These steps end where the last few have left more than this share of the misfit. Not over quadratic priors either:
they learn the curvature while they seem to stand still (Style_A: 9.1 m/s after 295 s with this rule, 4.9 after 106)."""

GRADIENT_COST = 8.0
"""Duration of a gradient in units of a simulation's."""


class _Point(NamedTuple):
    """Where a step has led.

    Attributes:
        values: (areas,) in m/s.
        data: The misfit there.
        gradient: Its gradient, (areas,).
        total: The misfit plus the weighted prior.
        slope: The gradient of that with respect to squared slowness, (areas,); see `GaussNewton._change`.
    """

    values: Tensor
    data: float
    gradient: Tensor
    total: float
    slope: Tensor


class Areas:
    """Cells that share one velocity: an unknown for each area.

    Args:
        of_cell: (depth, width), number of the area of each cell.
        held: (depth, width), cells whose velocity is known; their areas do not change.
    """

    def __init__(self, of_cell: Tensor, held: Tensor) -> None:
        self.of_cell = of_cell
        self.count = int(of_cell.max()) + 1
        self.single = self.count == of_cell.numel()
        self._known = held
        self.held = torch.zeros(self.count, dtype=torch.bool)
        self.held[of_cell[held]] = True

    def spread(self, values: Tensor) -> Tensor:
        """(areas,) to (depth, width)."""
        return values[self.of_cell]

    def collect(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the cells, (depth, width), to that with respect to the areas."""
        return gradient.new_zeros(self.count).index_add_(0, self.of_cell.flatten(), gradient.flatten())

    def mean(self, velocity: Tensor) -> Tensor:
        """The mean of a map in each area; where a velocity is known, that one."""
        values = self.collect(velocity) / self.collect(torch.ones_like(velocity))
        values[self.of_cell[self._known]] = velocity[self._known]
        return values


class GaussNewton:
    """Steps from a map until the objective's budget is spent.

    Each step minimises the quadratic model of the misfit, whose curvature is written out, plus weight * prior, and is
    shortened until that sum falls. The weight is `balance` times misfit over energy and never rises: the data are free
    of noise, and the better they are explained the less has to be assumed.

    Attributes:
        cost: Seconds that the next step may take, without those that follow it.

    Args:
        objective: The misfit.
        areas: The unknowns.
        prior: Makes the prior of a map, (depth, width) float64, and the relative rms residual there.
        balance: The prior's share of the objective, in units of the data's. Default 5.
        fall: Factor of the prior's weight after a step that did not have to be shortened. Default 1.
        cost: Seconds that the first step may take; those after it take what the last ones took. Default 0.
        damping: Share of the curvature's diagonal that is added to it in the first step. Default 0.01.
        following: Quasi-Newton steps at most that follow each step; they cost a gradient each, a matrix 15. Default 10.
    """

    def __init__(
        self,
        objective: Objective,
        areas: Areas,
        prior: Callable[[Tensor, float], Prior],
        balance: float = 5.0,
        fall: float = 1.0,
        cost: float = 0.0,
        damping: float = DAMPING[1],
        following: int = 10,
    ) -> None:
        self.objective, self.areas, self._prior = objective, areas, prior
        self._begun = torch.zeros(0)
        self._matrix: Tensor | None = None
        self._balance, self._fall = balance, fall
        self._damping, self._following = damping, following
        self._weight = float("inf")
        self._near = False
        self.cost = cost

    def run(self, values: Tensor, steps: int = sys.maxsize, share: float = math.inf, far: bool = False) -> Tensor:
        """Go on until nothing moves any more.

        Args:
            values: (areas,) float64 in m/s, where to start.
            steps: At most so many. Default: no limit.
            share: Of the misfit; a step that leaves more of it is the last one. Default: no limit.
            far: Whether the first step that others follow is the last one, with them. Default False.

        Returns:
            Where it ends.

        Raises:
            Enough: If the map is good enough or the budget is spent.
        """
        self.objective.check(self.cost)
        point = self._at(values)
        for _ in range(steps):
            before = point.data
            moved = self._step(point)
            if moved is not None:
                point = moved
                self._matrix = None
            elif self._damping >= DAMPING[2]:
                break
            self.objective.check(self.cost)
            if point.data > share * before or (far and self._near):
                break
        return point.values

    def _step(self, begin: _Point) -> _Point | None:
        """A step that lowers the sum of misfit and prior, and those that follow it. None: there is none."""
        begun = time.monotonic()
        velocity = self.areas.spread(begin.values)
        prior = self._prior(velocity, self.objective.found.misfit)
        self._weight = min(self._weight, self._balance * begin.data / max(prior.energy(velocity)[0], 1e-12))
        if self._matrix is None:
            self._matrix = gauss_newton_matrix(
                velocity.float(), self.objective.survey, self.objective.weight, self.areas.of_cell
            )
        self._begun = begin.values
        begin = self._judge(begin.values, begin.data, begin.gradient, prior)
        for attempt in range(STIFFER[1]):
            change = self._solve(begin, prior)
            found, length = self._search(begin, change, prior, 1.0 if attempt < STIFFER[1] - 1 else SHORTEST)
            if found is not None:
                break
            self._damping = min(STIFFER[0] * self._damping, DAMPING[2])
        self.cost = max(0.8 * self.cost, time.monotonic() - begun)
        if length == 1.0:
            self._damping = max(0.3 * self._damping, DAMPING[0])
        elif length < SHORTER:
            self._damping = min(3 * self._damping, DAMPING[2])
        self._near = length == 1.0 and (prior.quadratic or self.objective.found.misfit < NEAR)
        if found is not None and self._near and self.areas.count > FEW:
            found = self._follow(begin, found, prior)
        if length == 1.0:
            self._weight *= self._fall
        return found

    def _search(
        self, begin: _Point, change: Tensor, prior: Prior, shortest: float = SHORTEST
    ) -> tuple[_Point | None, float]:
        """Where the first of ever shorter steps leads that lowers the sum; and the share of the step. None: nowhere."""
        length = 1.0
        while length >= shortest:
            tried = self._at(self._reached(self._change(begin.values) + length * change), prior)
            if tried.total < begin.total:
                return tried, length
            length *= SHORTER
        return None, length

    def _at(self, values: Tensor, prior: Prior | None = None) -> _Point:
        """What is there, one gradient away; without a prior of the misfit alone."""
        data, gradient = self.objective.gradient(self.areas.spread(values))
        return self._judge(values, data, self.areas.collect(gradient), prior)

    def _judge(self, values: Tensor, data: float, gradient: Tensor, prior: Prior | None) -> _Point:
        if prior is None:
            return _Point(values, data, gradient, data, gradient)
        energy, pull = prior.energy(self.areas.spread(values))
        slope = self._stretch(values) * (gradient + self._weight * self.areas.collect(pull))
        return _Point(values, data, gradient, data + self._weight * energy, slope)

    def _follow(self, begin: _Point, found: _Point, prior: Prior) -> _Point:
        """Quasi-Newton steps that begin with the inverse of the matrix.

        The gradient is exact, the matrix is not, and it is that of where it was made. What they have seen of the
        curvature on their way mends it in the directions that matter.
        """
        pairs: list[tuple[Tensor, Tensor]] = []
        lately = deque([found.data], maxlen=LATELY + 1)
        for _ in range(self._following):
            moved = self._change(found.values) - self._change(begin.values)
            turned = found.slope - begin.slope
            if float(moved @ turned) > 0:
                pairs.append((moved, turned))
            self.objective.check(GRADIENT_COST * self.objective.pace)
            further, length = self._search(found, -mended(self._inverse, pairs, found.slope), prior)
            if further is None:
                break
            begin, found = found, further
            if length < 1 and not prior.quadratic:
                self._factorise(found.values, prior)
            lately.append(found.data)
            if not prior.quadratic and len(lately) > LATELY and found.data > SLOW * lately[0]:
                break
        return found

    def _solve(self, begin: _Point, prior: Prior) -> Tensor:
        """The minimum of the quadratic model plus the prior, as a change; see `_change`."""
        assert self._matrix is not None
        damping = self._damping * self._matrix.diagonal()
        values, change = begin.values, torch.zeros_like(begin.values)
        for _ in range(1 if prior.quadratic else REWEIGHTED):
            self._factorise(values, prior)
            pull = self._weight * self.areas.collect(prior.energy(self.areas.spread(values))[1])
            moved = change.to(self._matrix.dtype)
            slope = begin.gradient + (self._matrix @ moved + damping * moved).double() + self._stretch(values) * pull
            values = self._reached(change - self._inverse(slope))
            change = self._change(values)
        return change

    def _change(self, values: Tensor) -> Tensor:
        """How far velocities are from where the step began, in squared slowness, counted from there."""
        return to_slowness(values, self._begun)

    def _reached(self, change: Tensor) -> Tensor:
        """The velocities at a change, within the bounds."""
        low, high = (self._change(torch.full_like(self._begun, bound)) for bound in self.objective.bounds)
        return to_velocity(change.clamp(low, high), self._begun)

    def _stretch(self, values: Tensor) -> Tensor:
        """The derivative of velocity with respect to the change."""
        return stretch(values, self._begun)

    def _factorise(self, values: Tensor, prior: Prior) -> None:
        """The sum, damped, of the matrix and the quadratic that lies above the prior at some values."""
        assert self._matrix is not None
        unit = self._stretch(values).reciprocal().to(self._matrix.dtype)
        system = self._matrix.clone()
        system.diagonal().mul_(1 + self._damping)
        system.mul_(unit[:, None]).mul_(unit)
        prior.add_curvature(system, self.areas.spread(values), self._weight, self.areas.of_cell)
        self._factor, scale = _cholesky(system, self.areas.held)
        self._scale = scale * unit

    def _inverse(self, right: Tensor) -> Tensor:
        """The inverse of the last system times a slope with respect to the change."""
        scaled = (self._scale * right.to(self._scale.dtype))[:, None]
        return (self._scale * torch.cholesky_solve(scaled, self._factor)[:, 0]).double()


def mended(inverse: Callable[[Tensor], Tensor], pairs: list[tuple[Tensor, Tensor]], slope: Tensor) -> Tensor:
    """An inverse curvature that pairs of changes of place and of slope have mended, times a slope.

    The two loops of Nocedal (1980, Mathematics of Computation 35): for the last pair the result is exact.

    Args:
        inverse: The inverse curvature before, times a vector.
        pairs: Changes of place and of slope, the first one first; their products are positive.
        slope: (unknowns,).

    Returns:
        (unknowns,); its negative is a step downhill.
    """
    slope = slope.clone()
    shares = []
    for moved, turned in reversed(pairs):
        shares.append(float(moved @ slope) / float(moved @ turned))
        slope -= shares[-1] * turned
    result = inverse(slope)
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        result += (share - float(turned @ result) / float(moved @ turned)) * moved
    return result


def _cholesky(system: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor, in its precision, of a symmetric system with its diagonal scaled to 1, and that scale.

    What is held gets 0.
    """
    scale = system.diagonal().clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    scale[held] = 0
    system.mul_(scale[:, None]).mul_(scale).diagonal().add_(ROUNDING[system.dtype])
    system.diagonal()[held] = 1
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        factor = torch.linalg.cholesky(system.double()).to(system.dtype)
    return factor, scale
