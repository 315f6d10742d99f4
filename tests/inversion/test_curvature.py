"""The Gauss-Newton matrix against differences of simulated records."""

import numpy as np
import pytest
import torch

from fwi_lightning.inversion.curvature import Derivative, gauss_newton_matrix, sensitivity
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=3, samples=400, sponge=40)
CELLS = [(6, 4), (12, 15), (17, 22)]
EDGES = {
    "bottom": (slice(23, 24), slice(0, 30)),
    "corner": (slice(23, 24), slice(0, 1)),
    "left": (slice(8, 24), slice(0, 1)),
    "right": (slice(8, 24), slice(29, 30)),
    "top": (slice(0, 1), slice(0, 30)),
}


@pytest.fixture(scope="module")
def velocity():
    generator = torch.Generator().manual_seed(0)
    rough = torch.nn.functional.avg_pool2d(torch.randn(1, 1, *SURVEY.grid, generator=generator), 5, 1, 2)[0, 0]
    return 2200 + 30 * torch.arange(24.0)[:, None] + 300 * rough


@pytest.fixture(scope="module")
def differences(velocity):
    """(cells, shots, time, receivers) by central differences in double precision, the sponge standing still."""
    slowest = velocity.min().double()
    rows = []
    for row, column in CELLS:
        change = torch.zeros(SURVEY.grid, dtype=torch.float64)
        change[row, column] = 1
        ahead, behind = (simulate(velocity + sign * change, SURVEY, slowest) for sign in (1, -1))
        rows.append((ahead - behind) / 2)
    return torch.stack(rows)


def test_reciprocity_gives_the_derivative_of_each_trace(velocity, differences):
    derivative = Derivative(velocity, SURVEY)
    ones = torch.ones(derivative.times)
    for shot in range(SURVEY.shots):
        found = derivative.of_shot(shot, ones).reshape(*SURVEY.grid, len(derivative.receivers), derivative.times)
        for cell, (row, column) in enumerate(CELLS):
            expected = differences[cell, shot][:: derivative.every, list(derivative.receivers)].T.float()
            assert float((found[row, column] - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("sponge", [10, 40, 90])
@pytest.mark.parametrize("edge", list(EDGES))
def test_it_is_right_of_the_edges_which_the_padding_repeats(velocity, edge, sponge):
    """With fast ground below slow one waves cross the padding and come in again through its periodic outer edge."""
    survey = Survey.surface(30, depth=24, shots=2, samples=600, sponge=sponge)
    ground = torch.cat([velocity[:14] - 500, velocity[14:] + 1700]).clamp(1500, 4500)
    change = torch.zeros(survey.grid, dtype=torch.float64)
    change[EDGES[edge]] = 2
    slowest = ground.min().double()
    ahead, behind = (simulate(ground + sign * change, survey, slowest) for sign in (1, -1))
    derivative = Derivative(ground, survey)
    wrong = size = 0.0
    for shot in range(survey.shots):
        rows = derivative.of_shot(shot, torch.ones(derivative.times))
        found = (change.flatten().float() @ rows).reshape(len(derivative.receivers), derivative.times)
        expected = (ahead - behind)[shot, :: derivative.every, list(derivative.receivers)].T / 2
        # The last samples miss what the wavelet's inverse takes from beyond the record.
        wrong += float((found - expected)[:, :-4].square().sum())
        size += float(expected[:, :-4].square().sum())
    assert wrong < 0.03**2 * size


@pytest.mark.parametrize("part", [100, 10_000])
def test_the_matrix_is_that_of_the_weighted_mean_square(velocity, differences, monkeypatch, part):
    monkeypatch.setattr("fwi_lightning.inversion.curvature.PART", part)
    weight = torch.linspace(0, 1, SURVEY.samples)
    matrix = gauss_newton_matrix(velocity, SURVEY, weight)
    rows = (differences * weight[:, None]).flatten(1)
    expected = (rows @ rows.T / rows.shape[1]).numpy()
    places = [row * SURVEY.grid[1] + column for row, column in CELLS]
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    np.testing.assert_allclose(matrix[places][:, places].numpy() / scale, expected / scale, atol=0.03)
    assert torch.equal(matrix, matrix.T)
    np.testing.assert_allclose(sensitivity(velocity, SURVEY, weight).flatten(), matrix.diagonal(), rtol=0.02)


def test_areas_are_felt_as_their_cells_are_together(velocity):
    """A square of cells away from the edges: its derivative is the sum of theirs, by two different ways."""
    areas = torch.zeros(SURVEY.grid, dtype=torch.int64)
    areas[8:12, 10:16] = 1
    weight = torch.ones(SURVEY.samples)
    inside = (areas == 1).flatten()
    few = gauss_newton_matrix(velocity, SURVEY, weight, areas)
    cells = gauss_newton_matrix(velocity, SURVEY, weight)
    assert few.shape == (2, 2)
    assert float(few[1, 1]) == pytest.approx(float(cells[inside][:, inside].sum()), rel=0.03)
