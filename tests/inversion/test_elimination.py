"""Areas are united where the record hardly objects: least squares on fewer and fewer unknowns."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.inversion import elimination
from fwi_lightning.inversion.elimination import LEAST, UNIT, Partition, eliminate, fewest_areas
from fwi_lightning.inversion.merging import merge
from fwi_lightning.inversion.newton import Areas
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.slowness import to_slowness
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SHAPE = (12, 10)
BOUNDS = (1500.0, 4500.0)
SURVEY = Survey.surface(42, depth=30, shots=3, samples=400, sponge=30)


def blocks():
    """Three areas, one of them in two parts that do not touch."""
    truth = torch.full(SHAPE, 2000.0, dtype=torch.float64)
    truth[5:] = 2500
    truth[2:4, 6:9] = 2500
    truth[8:, :4] = 3100
    return truth


def slownesses():
    """(cells,): their squared slowness, in which the record is linear."""
    return to_slowness(blocks().flatten(), UNIT)


@pytest.fixture
def regression():
    """A record of twice as many numbers as cells, with the noise of 2 m/s; two cells in the corner are hardly felt."""
    rng = np.random.default_rng(3)
    design = rng.normal(size=(240, 120))
    design[:, [118, 119]] *= 0.003
    data = design @ slownesses().numpy() + 2 * rng.normal(size=240)
    return design, data


def whole(design, data, held=()):
    cells = torch.arange(120).reshape(SHAPE)
    known = torch.zeros(120, dtype=torch.bool)
    known[list(held)] = True
    values = torch.where(known, slownesses(), 0)
    return Partition(cells, known, values, torch.from_numpy(design.T @ design), torch.from_numpy(-design.T @ data))


def test_each_partition_has_the_velocities_of_least_squares(regression):
    design, data = regression
    for partition in eliminate(whole(*regression), 4.0, BOUNDS):
        count = len(partition.values)
        union = np.zeros((120, count))
        union[np.arange(120), partition.of_cell.flatten().numpy()] = 1
        expected = np.linalg.lstsq(design @ union, data, rcond=None)[0]
        np.testing.assert_allclose(partition.values.numpy(), expected, rtol=1e-6)
    assert count <= LEAST


def test_true_areas_are_left_and_give_the_cells_that_are_not_felt_their_velocity(regression, monkeypatch):
    monkeypatch.setattr(elimination, "LEAST", 4)
    first, *_, last = eliminate(whole(*regression), 4.0, BOUNDS)
    truth = blocks()
    assert float((first.velocity(BOUNDS) - truth).abs()[-1, -2:].max()) > 20
    assert float((last.velocity(BOUNDS) - truth).abs().max()) < 2
    for area in range(len(last.values)):
        assert len(truth[last.of_cell == area].unique()) == 1


def test_known_velocities_stay(regression):
    for partition in eliminate(whole(*regression, held=[0, 57]), 4.0, BOUNDS):
        known = [0, 57]
        assert torch.equal(partition.values[partition.of_cell.flatten()[known]], slownesses()[known])
        assert partition.velocity(BOUNDS).flatten()[known].tolist() == pytest.approx([2000, 2500], rel=1e-12)


def layered():
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[10:, :25] = 2600
    truth[13:, 25:] = 2600
    truth[21:] = 3000
    return truth


def test_blurred_layers_get_their_edges_back():
    truth = layered()
    blurred = torch.from_numpy(gaussian_filter(truth.numpy(), 0.6))
    objective = Objective(simulate(truth, SURVEY), blurred, SURVEY, (1500, 4500), 300, 0, None)
    cells = Areas(torch.arange(truth.numel()).reshape(truth.shape), objective.held)
    for _ in range(3):
        found = fewest_areas(objective, cells, cells.mean(objective.found.velocity[0].double()))
        assert found is not None
    areas, values = found
    assert areas.count < 40
    before, after = ((velocity - truth).abs().mean() for velocity in (blurred, areas.spread(values)))
    assert float(after) < 0.2 * float(before)


def test_nothing_is_found_where_no_fewer_areas_explain_it():
    rng = np.random.default_rng(0)
    rough = torch.from_numpy(2500 + 1000 * gaussian_filter(rng.normal(size=SURVEY.grid), 1.5)).float()
    objective = Objective(simulate(rough, SURVEY), rough + 0.1, SURVEY, (1500, 4500), 300, 0, None)
    areas = merge(objective.start, objective.held, 1.0)
    found = fewest_areas(objective, areas, areas.mean(objective.start))
    assert found is None or found[0].count > 0.25 * areas.count


def test_a_form_without_a_minimum_gives_nothing(monkeypatch):
    truth = layered()
    objective = Objective(simulate(truth, SURVEY), truth + 10, SURVEY, (1500, 4500), 300, 0, None)
    areas = merge(objective.start, objective.held, 1.0)
    monkeypatch.setattr(elimination, "gauss_newton_matrix", lambda *_: -torch.ones(areas.count, areas.count))
    assert fewest_areas(objective, areas, areas.mean(objective.start)) is None
