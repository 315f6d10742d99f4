"""Layers moved by whole cells, as the true ones lie: integer least squares on the record's differences.

A move of an interface, of a column or of the fault by a cell changes the record by so much that no derivative tells
it; but the changes of several moves nearly add up. So each is simulated once, and the set of moves whose changes,
together with new velocities of the layers, explain most of what is left is sought without any further simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.geology.layers import fill
from fwi_lightning.inversion.curvature import quadratic_model
from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.pursuit import pursue

Array = NDArray[np.float64]

MOST = 25
"""Moves in a set."""

STEP = 5.0
"""m/s, of the layers' velocities: small beside what bends the record, large beside rounding."""

DEEP, BEAM = 4, 200
"""Moves that are added at once where no single one helps, and the sets of them that are kept at each."""

FALL = 0.98
"""Share of the misfit that may be left after a round for another one."""

ROUNDS = 40
"""At most; they end long before."""

MIDDLES = (0.0, 0.25, -0.25, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)
"""Columns by which a fault is moved..."""

TILTS = (0.0, 0.01, -0.01, 0.02, -0.02, 0.04, -0.04, 0.1, -0.1)
"""... while it is tilted by columns a row."""


@dataclass(frozen=True)
class Stack:
    """Layers that are moved up and down by whole cells.

    Attributes:
        interfaces: (layers - 1,), growing: the first row of each layer but the uppermost, in the unmoved stack.
        values: (layers,) in m/s.
        shifts: (width,), rows by which each column shows a deeper part of the stack.
        fault: (3,): its column at half the depth, the columns by which it leans with each row, and the rows by which
            what lies to its right shows a deeper part. Or (0,): there is none.
    """

    interfaces: Array
    values: Array
    shifts: Array
    fault: Array

    def rows(self, depth: int) -> Array:
        """(depth, width), the row of the unmoved stack that each cell shows."""
        moved = np.arange(depth)[:, None] + self.shifts
        if len(self.fault):
            moved = moved + self.fault[2] * (right_of(self.fault, moved.shape) >= 0)
        return moved

    def velocity(self, depth: int) -> Array:
        """(depth, width) in m/s."""
        return fill(self.rows(depth), self.interfaces, self.values)

    def moved(self, move: Array, change: Array | float = 0.0, bounds: tuple[float, float] = (0.0, np.inf)) -> Stack:
        """With other places, a move being a change of (interfaces, shifts, fault), and other velocities."""
        interfaces, shifts, fault = np.split(move, np.cumsum([len(self.interfaces), len(self.shifts)]))
        values = (self.values + change).clip(*bounds)
        return Stack(self.interfaces + interfaces, values, self.shifts + shifts, self.fault + fault)


def right_of(fault: Array, shape: tuple[int, ...]) -> Array:
    """How far each cell lies to the right of a fault, in columns.

    Args:
        fault: Its column at half the depth and the columns by which it leans with each row; more is not looked at.
        shape: Cells of the map, (depth, width).

    Returns:
        (depth, width), negative to the left.
    """
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(columns - fault[0] - fault[1] * (rows - (shape[0] - 1) / 2))


def settle(objective: Objective, stack: Stack) -> Stack:
    """Move layers by whole cells, and choose them anew where that ends, for as long as the misfit falls.

    Args:
        objective: The misfit; what is found is there, too.
        stack: Where to start.

    Returns:
        Where it ends.

    Raises:
        Enough: As `Objective`.
    """
    depth = objective.survey.grid[0]
    before = objective.value(torch.from_numpy(stack.velocity(depth)))
    for _ in range(ROUNDS):
        stack, reached = _round(objective, stack)
        if reached > FALL * before:
            anew = choose_layers(objective, stack)
            before, reached = reached, objective.value(torch.from_numpy(anew.velocity(depth)))
            if reached > FALL * before:
                break
            stack = anew
        before = reached
    return stack


def choose_layers(objective: Objective, stack: Stack, profile: Array | None = None) -> Stack:
    """The fewest layers that explain the record where columns and fault are as they are.

    Args:
        objective: The misfit.
        stack: The columns and the fault.
        profile: Velocities of the rows of the unmoved stack that the map shows, in m/s, where the record is
            linearised. Default: those of the stack.

    Returns:
        Other layers.

    Raises:
        Enough: As `Objective`.
    """
    rows = stack.rows(objective.survey.grid[0])
    first = rows.min()
    areas = Areas(torch.from_numpy(rows - first).long(), torch.zeros(rows.shape, dtype=torch.bool))
    if profile is None:
        profile = fill(np.arange(first, rows.max() + 1), stack.interfaces, stack.values)
    chosen = pursue(objective, areas, torch.from_numpy(profile), steps=1).numpy()
    steps = np.flatnonzero(np.diff(chosen)) + 1
    return replace(stack, interfaces=first + steps, values=chosen[np.concatenate([[0], steps])])


def _round(objective: Objective, stack: Stack) -> tuple[Stack, float]:
    """The best of some sets of moves, and the misfit there."""
    depth = objective.survey.grid[0]
    moves, kinds = _moves(stack)
    objective.check((len(moves) + len(stack.values)) * objective.pace)
    base, still = stack.velocity(depth), np.zeros(moves.shape[1])
    others = [stack.moved(still, change) for change in STEP * np.eye(len(stack.values))]
    others += [stack.moved(move) for move in moves]
    maps = torch.from_numpy(np.stack([other.velocity(depth) for other in others]))
    model = quadratic_model(torch.from_numpy(base), maps, objective.gathers, objective.survey, objective.weight)
    matrix, slope, misfit = model[0].numpy(), model[1].numpy(), model[2]
    # What the velocities of the layers can make up for does not count.
    count = len(stack.values)
    inner = matrix[:count, :count] + 1e-9 * matrix.diagonal()[:count].mean() * np.eye(count)
    solved = np.linalg.solve(inner, np.column_stack([matrix[:count], slope[:count]]))
    left = matrix - matrix[:, :count] @ solved[:, :-1]
    pull = slope - matrix[:, :count] @ solved[:, -1]
    tried = []
    for chosen in _sets(left[count:, count:], pull[count:], kinds, 1e-9 * misfit):
        change = -STEP * (solved[:, -1] + solved[:, [count + index for index in chosen]].sum(axis=1))
        move = moves[chosen].sum(axis=0)
        tried += [stack.moved(move, change, objective.bounds), stack.moved(move)]
    values = objective.values(torch.from_numpy(np.stack([other.velocity(depth) for other in tried])))
    best = int(np.argmin(values))
    return tried[best], values[best]


def _moves(stack: Stack) -> tuple[Array, Array]:
    """Moves, (moves, places), and a number for each, equal for those of which a set may hold one."""
    flat, width = len(stack.interfaces), len(stack.shifts)
    single = np.eye(flat + width + len(stack.fault))
    ways = [(row, number) for number, row in enumerate(single[:flat])]
    if stack.shifts.any():
        ways += [(row, flat + number) for number, row in enumerate(single[flat : flat + width])]
    moves = [(sign * row, number) for row, number in ways for sign in (-1, 1)]
    if len(stack.fault):
        middle, lean, throw = single[-3:]
        right = [m * middle + tilt * lean for m in MIDDLES for tilt in TILTS if m or tilt]
        right += [sign * throw + m * middle for sign in (-1, 1) for m in (0.0, 0.5, -0.5)]
        left = [sign * (throw - single[flat : flat + width].sum(axis=0)) for sign in (-1, 1)]
        moves += [(move, flat + width) for move in right + left]
    thickness = np.diff(stack.interfaces)
    allowed = [(m, n) for m, n in moves if (thickness + np.diff(m[:flat]) > 0).all()]
    return np.stack([move for move, _ in allowed]), np.array([number for _, number in allowed])


def _sets(matrix: Array, slope: Array, kinds: Array, least: float) -> Iterator[list[int]]:
    """Sets of moves that lower 1/2 n^T matrix n + slope^T n more and more, n being 1 for those chosen.

    Steps of greedy search: a move is added, taken out, or exchanged for another one, whichever lowers the form most;
    where none does, several are added at once.

    Args:
        matrix: (moves, moves), symmetric.
        slope: (moves,).
        kinds: (moves,), at most one of each kind is chosen.
        least: By which a step has to lower the form.

    Yields:
        The sets, the empty one first.
    """
    chosen: list[int] = []
    yield chosen
    alone = slope + matrix.diagonal() / 2
    while len(chosen) < MOST:
        steps = []
        for out in [None, *chosen]:
            rest = [index for index in chosen if index != out]
            fall = 0.0 if out is None else -(alone[out] + matrix[out, rest].sum())
            further = alone + matrix[rest].sum(axis=0)
            further[np.isin(kinds, kinds[rest])] = np.inf
            best = int(further.argmin())
            steps += [(fall + further[best], [*rest, best]), (fall, rest)]
        fall, best_set = min(steps)
        if fall > -least:
            fall, best_set = _together(matrix, alone, kinds, chosen)
        if fall > -least:
            return
        chosen = best_set
        yield chosen


def _together(matrix: Array, alone: Array, kinds: Array, chosen: list[int]) -> tuple[float, list[int]]:
    """Up to `DEEP` moves added at once, of which each alone may make it worse, as neighbouring columns do: beam search.

    Returns:
        What the best of them change the form by, and the set with them.
    """
    beam, best = [(0.0, chosen)], (np.inf, chosen)
    for _ in range(DEEP):
        further = np.stack([value + alone + matrix[held].sum(axis=0) for value, held in beam])
        further[np.stack([np.isin(kinds, kinds[held]) for _, held in beam])] = np.inf
        wider: dict[tuple[int, ...], float] = {}
        for place in np.argsort(further, axis=None)[: 2 * BEAM]:
            row, move = np.unravel_index(place, further.shape)
            wider[tuple(sorted([*beam[row][1], int(move)]))] = float(further[row, move])
        beam = [(value, list(held)) for held, value in wider.items()][:BEAM]
        best = min(best, beam[0])
    return best
