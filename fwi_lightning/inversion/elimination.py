"""The fewest areas that explain a record: areas are united as long as the record hardly objects.

A map that was found cell by cell explains a record of layers with thousands of numbers, where a handful would do; what
it has too many of hides in blurred edges and in drifting velocities at depth. The quadratic model of the misfit knows
how uncertain the difference of any two areas is. The least significant differences are removed first: what is known of
a layer's well-lit part then sharpens its edges, and these decide what was less certain. (Backward elimination of a
regression's terms: Efroymson, 1960; uniting groups by the least loss: Ward, 1963, Journal of the American Statistical
Association 58.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from torch import Tensor

from fwi_lightning.inversion.curvature import gauss_newton_matrix
from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.slowness import stretch, to_slowness, to_velocity

LARGEST_INVERSE = 5000
"""Areas up to which it is done: of more the inverse takes long."""

LEAST = 6
"""Areas at which it ends; OpenFWI's maps have three and more."""

MANY = 1500
"""Areas above which more of them are united at once."""

SHARES = (0.3, 0.1)
"""Of the areas that are united at once, above `MANY` and up to it."""

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Shares of the curvature's diagonal that may be added to it: as much as makes the model's minimum a good map."""

ALIKE = 30.0
"""m/s: differences far below are removed however sure the record is of them, for the model is not."""

STRAY = 50.0
"""m/s that a cell may stray from the map without a price, where the record does not hold it."""

PRICE = 1e-3
"""Of a cell that strays as far, in units of the misfit."""

SLACK = 6.0
"""Factor by which the misfit may rise with fewer areas: if they are the right ones it falls again in the next steps."""

HOPELESS = 16.0
"""Beyond this multiple of that no fewer areas are tried."""

UNIT = 2500.0
"""m/s that the squared slowness is counted from; see `fwi_lightning.inversion.slowness`."""


@dataclass(frozen=True)
class Partition:
    """Areas, and a quadratic form 1/2 c^T matrix c + slope^T c of their squared slownesses.

    Attributes:
        of_cell: (depth, width), number of the area of each cell.
        held: (areas,), whether its velocity is known.
        values: (areas,) float64, squared slowness in m/s.
        matrix: (areas, areas) float64, positive.
        slope: (areas,) float64.
    """

    of_cell: Tensor
    held: Tensor
    values: Tensor
    matrix: Tensor
    slope: Tensor

    def velocity(self, bounds: tuple[float, float]) -> Tensor:
        """(depth, width) float64 in m/s."""
        return self.velocities(bounds)[self.of_cell]

    def velocities(self, bounds: tuple[float, float]) -> Tensor:
        """(areas,) float64 in m/s."""
        low, high = to_slowness(torch.tensor(bounds, dtype=torch.float64), UNIT).tolist()
        return to_velocity(self.values.clamp(low, high), UNIT)


def fewest_areas(objective: Objective, areas: Areas, values: Tensor) -> tuple[Areas, Tensor] | None:
    """The fewest areas that explain the record nearly as well as a map does.

    Args:
        objective: The misfit.
        areas: The unknowns.
        values: (areas,) float64 in m/s, the map.

    Returns:
        Areas and their velocities, or None where no map of the model explains it nearly as well.

    Raises:
        Enough: As `Objective`.
    """
    velocity = areas.spread(values)
    misfit, gradient = objective.gradient(velocity)
    matrix = gauss_newton_matrix(velocity.float(), objective.survey, objective.weight, areas.of_cell).double()
    cells = areas.collect(torch.ones_like(velocity))
    unit, slowness, slope = stretch(values, UNIT), to_slowness(values, UNIT), areas.collect(gradient)
    start, best = None, math.inf
    for ridge in RIDGES:
        form = matrix.clone()
        form.diagonal().add_(torch.maximum(ridge * matrix.diagonal(), PRICE * misfit / STRAY**2 * cells))
        form *= unit[:, None] * unit
        whole = Partition(areas.of_cell, areas.held, slowness, form, unit * slope - form @ slowness)
        try:
            minimum = next(eliminate(whole, misfit, objective.bounds))
        except torch.linalg.LinAlgError:  # rounding has made it negative
            continue
        reached = objective.value(minimum.velocity(objective.bounds))
        if reached > best:
            break
        start, best = whole, reached
    if start is None:
        return None
    chosen = None
    for partition in eliminate(start, misfit, objective.bounds):
        reached = objective.value(partition.velocity(objective.bounds))
        if reached <= SLACK * misfit:
            chosen = partition
        elif reached > HOPELESS * SLACK * misfit:
            break
    return None if chosen is None else (Areas(chosen.of_cell, objective.held), chosen.velocities(objective.bounds))


def eliminate(partition: Partition, scale: float, bounds: tuple[float, float]) -> Iterator[Partition]:
    """Minima of the form with fewer and fewer areas.

    Args:
        partition: What to begin with.
        scale: A misfit: differences count as significant as far as removing them would raise the form by about that.
        bounds: Lowest and highest velocity, m/s.

    Yields:
        The minimum of the partition itself, then of ever fewer areas, the last of about `LEAST`.

    Raises:
        torch.linalg.LinAlgError: If the form has no minimum.
    """
    while True:
        free = (~partition.held).nonzero()[:, 0]
        factor = torch.linalg.cholesky(partition.matrix[free][:, free])
        values = torch.where(partition.held, partition.values, 0)
        pull = (partition.slope + partition.matrix @ values)[free]
        values[free] = -torch.cholesky_solve(pull[:, None], factor)[:, 0]
        partition = replace(partition, values=values)
        yield partition
        if len(values) <= LEAST:
            return
        covariance = torch.zeros_like(partition.matrix)
        covariance[free[:, None], free] = torch.cholesky_inverse(factor)
        velocities = partition.velocities(bounds)
        unit = stretch(velocities, UNIT)
        partition = _united(partition, velocities, unit[:, None] * unit * covariance, scale)


def _united(partition: Partition, velocities: Tensor, covariance: Tensor, scale: float) -> Partition:
    """With the least significant differences of neighbours removed.

    Args:
        partition: What to begin with.
        velocities: (areas,) in m/s.
        covariance: (areas, areas), theirs, per unit of misfit.
        scale: As `eliminate`.
    """
    count, label = len(velocities), partition.of_cell
    down, across = torch.stack([label[:-1], label[1:]]), torch.stack([label[:, :-1], label[:, 1:]])
    pairs = torch.cat([down.flatten(1), across.flatten(1)], dim=1)
    one, other = pairs[:, pairs[0] != pairs[1]].sort(dim=0)[0].unique(dim=1)
    spread = covariance.diagonal()
    spread = (spread[one] + spread[other] - 2 * covariance[one, other]).clamp_min(0)
    price = (velocities[one] - velocities[other]).square() / (spread * scale + ALIKE**2)
    price[partition.held[one] & partition.held[other]] += 1e6
    # The cheapest of a spanning tree's links: each of them unites two areas more.
    graph = coo_array((price.numpy() + 1e-12, (one.numpy(), other.numpy())), shape=(count, count))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    chosen = np.argsort(tree.data)[: max(1, int(SHARES[count <= MANY] * count))]
    links = coo_array((np.ones(len(chosen)), (tree.row[chosen], tree.col[chosen])), shape=(count, count))
    fewer, number = connected_components(links, directed=False)
    into = torch.from_numpy(number).long()

    def added(matrix: Tensor, dim: int) -> Tensor:
        shape = list(matrix.shape)
        shape[dim] = fewer
        return matrix.new_zeros(shape).index_add_(dim, into, matrix)

    known = added(partition.held.double(), 0)
    return Partition(
        of_cell=into[label],
        held=known > 0,
        values=added(torch.where(partition.held, partition.values, 0), 0) / known.clamp_min(1),
        matrix=added(added(partition.matrix, 0), 1),
        slope=added(partition.slope, 0),
    )
