"""The fewest layers that explain a record."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Enough, Objective
from fwi_lightning.inversion.pursuit import pursue, stacks
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=1, samples=350, sponge=30)


def form(rows: int, seed: int):
    """A positive quadratic form whose neighbours are hard to tell apart, as a record's."""
    rng = np.random.default_rng(seed)
    data = gaussian_filter(rng.standard_normal((60, rows)), (0, 0.6))
    truth = np.repeat([2.0, -1.0, 1.5], [4, 3, rows - 7])
    record = data @ truth + 0.01 * rng.standard_normal(60)
    return data.T @ data, -data.T @ record, truth


def least(matrix, slope, pieces: int) -> float:
    """The least value over all ways to cut, by trying each."""
    rows = len(slope)
    values = []
    for cuts in combinations(range(1, rows), pieces - 1):
        spread = np.repeat(np.eye(pieces), np.diff([0, *cuts, rows]), axis=0)
        inner, right = spread.T @ matrix @ spread, spread.T @ slope
        heights = np.linalg.solve(inner, -right)
        values.append(0.5 * heights @ inner @ heights + right @ heights)
    return min(values)


@pytest.mark.parametrize("seed", range(4))
def test_stacks_are_the_best_of_all_ways_to_cut(seed):
    matrix, slope, truth = form(12, seed)
    found = list(stacks(matrix, slope, 4))
    assert [len(np.flatnonzero(np.diff(stack))) + 1 for stack in found] == [1, 2, 3, 4]
    for pieces, stack in enumerate(found, start=1):
        value = 0.5 * stack @ matrix @ stack + slope @ stack
        assert value == pytest.approx(least(matrix, slope, pieces), rel=1e-6)
    assert found[2] == pytest.approx(truth, abs=0.1)


def test_stacks_end_where_there_are_no_more_rows():
    matrix, slope, _ = form(12, 0)
    found = list(stacks(matrix[:8, :8], slope[:8], 20))
    assert len(found) == 8
    assert found[-1] == pytest.approx(np.linalg.solve(matrix[:8, :8], -slope[:8]), abs=1e-4)


def test_the_layers_of_a_record_are_found_exactly():
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[5:] = 2031
    truth[8:] = 2600
    truth[15:] = 2450
    truth[19:] = 3300
    record = simulate(truth, SURVEY)
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), 1.5))
    objective = Objective(record, smooth, SURVEY, (1500, 4500), 400, 1e-6, None)
    depth, width = SURVEY.grid
    rows = Areas(torch.arange(depth)[:, None].expand(depth, width), objective.held)
    with objective.within(0.5) as part:
        values = pursue(part, rows, rows.mean(objective.start))
    with pytest.raises(Enough):
        pursue(objective, rows, values, 6)
    assert float((objective.found.velocity[0] - truth).abs().max()) < 0.05
