"""Gauss-Newton steps of the waveform inversion with a prior whose weight follows the misfit."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fwi_lightning.inversion.curvature import gauss_newton_matrix
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.priors import Prior

REWEIGHTED = 3
"""Times that the quadratic above the prior is drawn anew within a step; each costs a factorisation."""

SHORTER = 0.4
"""Factor of a step that has not lowered the objective."""

DAMPING = (1e-7, 1e-2, 1.0)
"""Least, first and greatest share of the curvature's diagonal added to it (Levenberg, 1944; Marquardt, 1963)."""

ROUNDING = {torch.float32: 3e-6, torch.float64: 1e-12}
"""Added to the diagonal, scaled to 1, so that a matrix of that precision can be factorised."""


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
        cost: Seconds that the next step may take.

    Args:
        objective: The misfit.
        areas: The unknowns.
        prior: Makes the prior of a map, (depth, width) float64, and the relative rms residual there.
        balance: The prior's share of the objective, in units of the data's. Default 5.
        fall: Factor of the prior's weight after a step that did not have to be shortened. Default 1.
        cost: Seconds that the first step may take; those after it take what the last ones took. Default 0.
        damping: Share of the curvature's diagonal that is added to it in the first step. Default 0.01.
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
    ) -> None:
        self.objective, self.areas, self._prior = objective, areas, prior
        self._matrix: Tensor | None = None
        self._balance, self._fall = balance, fall
        self._damping = damping
        self._weight = float("inf")
        self.cost = cost

    def run(self, values: Tensor, steps: int = sys.maxsize, share: float = math.inf) -> Tensor:
        """Go on until nothing moves any more.

        Args:
            values: (areas,) float64 in m/s, where to start.
            steps: At most so many. Default: no limit.
            share: Of the misfit; a step that leaves more of it is the last one. Default: no limit.

        Returns:
            Where it ends.

        Raises:
            Enough: If the map is good enough or the budget is spent.
        """
        self.objective.check(self.cost)
        data, gradient = self._gradient(values)
        for _ in range(steps):
            begun = time.monotonic()
            before = data
            moved = self._step(values, data, gradient)
            if moved is not None:
                values, data = moved
                data, gradient = self._gradient(values)
                self._matrix = None
            elif self._damping >= DAMPING[2]:
                break
            self.cost = max(0.8 * self.cost, time.monotonic() - begun)
            self.objective.check(self.cost)
            if data > share * before:
                break
        return values

    def _gradient(self, values: Tensor) -> tuple[float, Tensor]:
        data, gradient = self.objective.gradient(self.areas.spread(values))
        return data, self.areas.collect(gradient)

    def _step(self, values: Tensor, data: float, gradient: Tensor) -> tuple[Tensor, float] | None:
        """A step that lowers the sum of misfit and prior: where it leads, and the misfit there. None: there is none."""
        velocity = self.areas.spread(values)
        prior = self._prior(velocity, self.objective.found.misfit)
        energy = prior.energy(velocity)[0]
        self._weight = min(self._weight, self._balance * data / max(energy, 1e-12))
        if self._matrix is None:
            self._matrix = gauss_newton_matrix(
                velocity.float(), self.objective.survey, self.objective.weight, self.areas.of_cell
            )
        change = self._solve(values, gradient, prior)
        length = 1.0
        while length > SHORTER**4:
            tried = (values + length * change).clamp(*self.objective.bounds)
            found = self.objective.value(self.areas.spread(tried))
            if found + self._weight * prior.energy(self.areas.spread(tried))[0] < data + self._weight * energy:
                break
            length *= SHORTER
        if length == 1.0:
            self._weight *= self._fall
            self._damping = max(0.3 * self._damping, DAMPING[0])
        elif length < SHORTER:
            self._damping = min(3 * self._damping, DAMPING[2])
        return (tried, found) if length > SHORTER**4 else None

    def _solve(self, values: Tensor, gradient: Tensor, prior: Prior) -> Tensor:
        """The minimum of the quadratic model plus the prior, as a change of the values."""
        assert self._matrix is not None
        curvature = self._matrix
        damping = self._damping * curvature.diagonal()
        change = torch.zeros_like(values)
        for _ in range(REWEIGHTED):
            velocity = self.areas.spread(values + change)
            system = curvature.clone()
            prior.add_curvature(system, velocity, self._weight, self.areas.of_cell)
            system.diagonal().add_(damping)
            slope = self._weight * self.areas.collect(prior.energy(velocity)[1])
            moved = change.to(curvature.dtype)
            slope += gradient + (curvature @ moved + damping * moved).double()
            change = change - _solve_scaled(system, slope, self.areas.held)
            change = (values + change).clamp(*self.objective.bounds) - values
        return change


def _solve_scaled(system: Tensor, right: Tensor, held: Tensor) -> Tensor:
    """Solve a symmetric system, in its precision, with its diagonal scaled to 1; what is held gets 0."""
    scale = system.diagonal().clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
    scale[held] = 0
    system.mul_(scale[:, None]).mul_(scale).diagonal().add_(ROUNDING[system.dtype])
    system.diagonal()[held] = 1
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        factor = torch.linalg.cholesky(system.double()).to(system.dtype)
    return (scale * torch.cholesky_solve((scale * right.to(system.dtype))[:, None], factor)[:, 0]).double()
