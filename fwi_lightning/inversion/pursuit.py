"""The fewest layers that explain a record: where interfaces lie is chosen, not drawn out of a smooth profile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.inversion.curvature import curvature_of_areas
from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Objective

LAYERS = 12
"""At most so many are tried; OpenFWI's stacks have up to 8."""

WORTH = 1.6
"""A layer more has to lower the misfit by this factor."""

STEPS = 3
"""Steps at most: they lead to the right layers at once or not at all."""

FALL = 0.999
"""Share of the misfit that may be left after a step for another one."""

BETTER = 1 - 1e-6
"""An interface moves where that lowers the model to this share of it; less is rounding."""

Array = NDArray[np.float64]


def pursue(objective: Objective, areas: Areas, values: Tensor, steps: int = STEPS) -> Tensor:
    """Gauss-Newton steps to stacks of few layers.

    The quadratic model of the misfit is minimised over stacks of 1, 2, 3 ... layers; each is simulated, as it is and
    with whole velocities. Where the layers are right, what the model leaves out vanishes, and the next step ends at
    the truth: 70 rows that the record hardly tells apart become a handful of numbers that it fixes to seven digits.
    Where they are wrong the steps stop soon; a smoother map is the better place to go on from.

    Args:
        objective: The misfit.
        areas: Rows of the stack: neighbours in their numbers are neighbours in depth.
        values: (areas,) float64 in m/s, where the first model is made.
        steps: Steps at most. Default 3.

    Returns:
        The stack where it ends, (areas,) in m/s.

    Raises:
        Enough: As `Objective`.
    """
    reached = math.inf
    for _ in range(steps):
        stack, value = _step(objective, areas, values)
        if value > FALL * reached:
            break
        values, reached = stack, value
    return values


def _step(objective: Objective, areas: Areas, values: Tensor) -> tuple[Tensor, float]:
    """The stack of layers with the least misfit for its number of layers, and that misfit."""
    objective.check(areas.count * objective.pace)
    velocity = areas.spread(values)
    gradient = objective.gradient(velocity)[1]
    matrix = curvature_of_areas(velocity.float(), objective.survey, objective.weight, areas.of_cell).numpy()
    slope = areas.collect(gradient).numpy() - matrix @ values.numpy()
    found = torch.from_numpy(np.stack(list(stacks(matrix, slope, LAYERS)))).clamp(*objective.bounds)
    tried = torch.cat([found, found.round()])
    misfit = torch.tensor(objective.values(tried[:, areas.of_cell]))
    best = int((misfit * WORTH ** torch.arange(len(found)).repeat(2)).argmin())
    return tried[best], float(misfit[best])


def stacks(matrix: Array, slope: Array, most: int) -> Iterator[Array]:
    """Piecewise constant minima of 1/2 v^T matrix v + slope^T v with 1, 2, 3 ... pieces.

    Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad, 1993, Asilomar Conference 27) among steps: the
    interface that lowers the form most is added, then each is moved to a better place while there is one. Not each
    of the minima need be the least one of its number.

    Args:
        matrix: (rows, rows), symmetric, not negative.
        slope: (rows,).
        most: Number of pieces at the end; fewer where no further one lowers the form.

    Yields:
        (rows,), the minimum with one more piece.
    """
    rows = len(slope)
    # Step k is 1 from row k on: sums from the end.
    form = matrix[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    force = -slope[::-1].cumsum()[::-1]
    chosen = [0]
    while True:
        chosen, heights = _settle(form, force, chosen)
        yield np.repeat(heights.cumsum(), np.diff([*chosen, rows]))
        step, reached = _next(form, force, chosen)
        if len(chosen) == min(most, rows) or reached <= _gain(form, force, chosen)[0]:
            return
        chosen = sorted([*chosen, step])


def _settle(form: Array, force: Array, chosen: list[int]) -> tuple[list[int], Array]:
    """Move interfaces one at a time until none has a better place; where they are then, and the steps' heights."""
    gain = _gain(form, force, chosen)[0]
    moved = True
    while moved:
        moved = False
        for place in chosen[1:]:
            rest = [step for step in chosen if step != place]
            better, reached = _next(form, force, rest)
            if reached * BETTER > gain:
                chosen, gain, moved = sorted([*rest, better]), reached, True
                break
    return chosen, _gain(form, force, chosen)[1]


def _next(form: Array, force: Array, chosen: Sequence[int]) -> tuple[int, float]:
    """The step that lowers the form most beside those chosen, and by how much they do together."""
    chosen = list(chosen)
    gain, heights = _gain(form, force, chosen)
    inner = form[np.ix_(chosen, chosen)]
    across = form[chosen]
    scale = np.sqrt(inner.diagonal())
    rest = form.diagonal() - (across * _solve(inner, across, scale)).sum(axis=0)
    left = force - heights @ across
    enough = rest > 1e-9 * form.diagonal()
    gains = np.where(enough, left**2 / np.where(enough, rest, 1), 0)
    gains[chosen] = -1
    step = int(gains.argmax())
    return step, gain + float(gains[step])


def _gain(form: Array, force: Array, chosen: Sequence[int]) -> tuple[float, Array]:
    """How much a choice of steps lowers the form, times two, and their heights."""
    chosen = list(chosen)
    inner = form[np.ix_(chosen, chosen)]
    heights = _solve(inner, force[chosen], np.sqrt(inner.diagonal()))
    return float(heights @ force[chosen]), heights


def _solve(inner: Array, right: Array, scale: Array) -> Array:
    """A system of equations with its diagonal scaled to 1."""
    scaled = inner / scale / scale[:, None]
    scaled.flat[:: len(scaled) + 1] += 1e-12
    return (np.linalg.solve(scaled, (right.T / scale).T).T / scale).T
