"""Layers, columns and a fault are moved by whole cells to where they truly lie."""

from itertools import combinations

import numpy as np
import pytest
import torch

from fwi_lightning.inversion.curvature import quadratic_model
from fwi_lightning.inversion.objective import Enough, Objective
from fwi_lightning.inversion.whole_cells import Stack, _moves, _sets, choose_layers, settle
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=3, samples=350, sponge=30)
NONE = np.zeros(0)
HILL = np.array([0] * 10 + [1, 2, 2, 3, 3, 3, 2, 1] + [0] * 12, float)
LAYERS = np.array([8.0, 14.0]), np.array([1800.0, 2600.0, 3200.0])


def objective(truth: Stack, start: Stack, misfit: float = 1e-5) -> Objective:
    record = simulate(torch.from_numpy(truth.velocity(24)).float(), SURVEY)
    return Objective(record, torch.from_numpy(start.velocity(24)), SURVEY, (1500, 4500), 300, misfit, None)


def test_a_stack_shows_deeper_rows_where_it_is_moved():
    stack = Stack(*LAYERS, HILL, np.array([20.0, 0.5, -4.0]))
    velocity = stack.velocity(24)
    for row, column in ((5, 0), (7, 13), (3, 29), (12, 29), (0, 5), (23, 20), (23, 25)):
        moved = row + HILL[column] - 4 * (column >= 20 + 0.5 * (row - 11.5))
        assert velocity[row, column] == (1800 if moved < 8 else 2600 if moved < 14 else 3200)


@pytest.mark.parametrize("seed", range(4))
def test_sets_of_moves_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    data, kinds = rng.standard_normal((40, 10)), np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
    record = data[:, [0, 3, 8]].sum(axis=1) + 0.05 * rng.standard_normal(40)
    matrix, slope = data.T @ data, -data.T @ record

    def value(chosen):
        return matrix[np.ix_(chosen, chosen)].sum() / 2 + slope[list(chosen)].sum()

    allowed = [
        chosen
        for count in range(5)
        for chosen in combinations(range(10), count)
        if len(set(kinds[list(chosen)])) == count
    ]
    sets = list(_sets(matrix, slope, kinds, 1e-12))
    assert sets[0] == []
    assert sorted(sets[-1]) == sorted(min(allowed, key=value)) == [0, 3, 8]
    values = [value(chosen) for chosen in sets]
    assert values == sorted(values, reverse=True)


def test_no_move_turns_layers_upside_down():
    stack = Stack(np.array([8.0, 9.0]), np.array([1800.0, 2600.0, 3200.0]), HILL, NONE)
    moves, kinds = _moves(stack)
    assert len(moves) == len(kinds) == 2 + 2 * 30
    assert all(np.diff(stack.moved(move).interfaces)[0] > 0 for move in moves)


def test_the_model_is_what_changes_that_add_up_would_leave():
    truth, start = Stack(*LAYERS, HILL, NONE), Stack(*LAYERS, 0 * HILL, NONE)
    sought = objective(truth, start)
    base = torch.from_numpy(start.velocity(24))
    maps = torch.stack([base + 3, base + 30 * (base > 2000)])
    matrix, slope, misfit = quadratic_model(base, maps, sought.gathers, SURVEY, sought.weight)
    slowest = base.min().float()
    records = simulate(torch.cat([base[None], maps]).float(), SURVEY, slowest.expand(3))
    both = records[1] + records[2] - records[0]
    left = 0.5 * float((sought.weight[:, None] * (both - sought.gathers)).double().square().mean())
    assert misfit == pytest.approx(sought.value(base), rel=1e-2)
    assert misfit + float(slope.sum() + matrix.sum() / 2) == pytest.approx(left, rel=1e-2)


def test_columns_interfaces_and_velocities_move_together_to_the_truth():
    truth = Stack(*LAYERS, HILL, NONE)
    start = Stack(np.array([9.0, 13.0]), np.array([1800.0, 2570.0, 3100.0]), np.roll(HILL, 1), NONE)
    sought = objective(truth, start)
    assert sought.found.misfit > 0.1
    with pytest.raises(Enough):
        settle(sought, start)
    assert (sought.found.velocity[0].round().numpy() == truth.velocity(24)).all()


def test_a_fault_moves_to_the_truth():
    truth = Stack(*LAYERS, 0 * HILL, np.array([15.0, 0.3, 4.0]))
    start = Stack(*LAYERS, 0 * HILL, np.array([16.5, 0.1, 3.0]))
    sought = objective(truth, start)
    with pytest.raises(Enough):
        settle(sought, start)
    assert (sought.found.velocity[0].round().numpy() == truth.velocity(24)).all()


def test_layers_are_chosen_where_columns_are_moved():
    truth = Stack(*LAYERS, HILL, NONE)
    start = Stack(np.array([11.0]), np.array([1800.0, 2900.0]), HILL, NONE)
    chosen = choose_layers(objective(truth, start, misfit=-1), start)
    for _ in range(3):
        chosen = choose_layers(objective(truth, chosen, misfit=-1), chosen)
    assert chosen.interfaces.tolist() == [8, 14]
    assert chosen.values == pytest.approx([1800, 2600, 3200], abs=2)
