"""Energies of maps: their gradients, the quadratics above them, and known values."""

import math

import numpy as np
import pytest
import torch

from fwi_lightning.inversion.priors import GaussianProcess, Texture, TotalVariation

SHAPE = (9, 7)


@pytest.fixture
def velocity():
    return 2000 + 300 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def priors(velocity):
    importance = torch.linspace(1, 0.2, 9)[:, None].expand(SHAPE)
    return [TotalVariation(importance, 20.0), GaussianProcess(velocity, Texture(2.0, 150.0, 30.0))]


@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_is_that_of_the_energy(velocity, which):
    prior = priors(velocity)[which]
    gradient = prior.energy(velocity)[1]
    for cell in [(0, 0), (4, 3), (8, 6), (8, 2)]:
        change = torch.zeros(SHAPE, dtype=torch.float64)
        change[cell] = 1e-3
        slope = (prior.energy(velocity + change)[0] - prior.energy(velocity - change)[0]) / 2e-3
        assert float(gradient[cell]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("which", [0, 1])
def test_the_quadratic_touches_the_energy_and_lies_above_it(velocity, which):
    prior = priors(velocity)[which]
    cells = torch.arange(63).reshape(SHAPE)
    matrix = torch.zeros(63, 63, dtype=torch.float64)
    prior.add_curvature(matrix, velocity, 1.0, cells)
    energy, gradient = prior.energy(velocity)
    generator = torch.Generator().manual_seed(1)
    for size in (1.0, 30.0, 400.0):
        change = size * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        flat = change.flatten()
        quadratic = energy + float((gradient * change).sum()) + 0.5 * float(flat @ matrix @ flat)
        assert prior.energy(velocity + change)[0] <= quadratic * (1 + 1e-5)


def test_areas_gather_what_their_cells_contribute(velocity):
    prior = priors(velocity)[0]
    areas = torch.arange(9)[:, None].expand(SHAPE)
    cells, rows = torch.zeros(63, 63, dtype=torch.float64), torch.zeros(9, 9, dtype=torch.float64)
    prior.add_curvature(cells, velocity, 2.0, torch.arange(63).reshape(SHAPE))
    prior.add_curvature(rows, velocity, 2.0, areas)
    spread = torch.nn.functional.one_hot(areas.flatten()).double()
    np.testing.assert_allclose(rows, spread.T @ cells @ spread, atol=1e-12)


def test_total_variation_of_a_step_is_its_height_times_its_length():
    velocity = torch.full((10, 20), 2000.0, dtype=torch.float64)
    velocity[4:] += 300
    ones = torch.ones(10, 20)
    assert TotalVariation(ones, 1e-3).energy(velocity)[0] == pytest.approx(300 * 20, rel=1e-4)
    assert TotalVariation(ones, 400.0).energy(velocity)[0] == pytest.approx(20 * (math.hypot(300, 400) - 400))
    assert TotalVariation(ones, 5.0).energy(torch.full_like(velocity, 2000))[0] == 0


def test_the_gaussian_process_has_the_kernel_that_it_names(velocity):
    texture = Texture(2.0, 150.0, 30.0)
    prior = GaussianProcess(velocity, texture)
    place = np.stack(np.meshgrid(np.arange(9), np.arange(7), indexing="ij"), -1).reshape(-1, 2)
    distance = np.square(place[:, None] - place).sum(-1)
    kernel = 150.0**2 * np.exp(-0.5 * distance / 2.0**2) + 30.0**2 * np.eye(63)
    rows = np.arange(9)
    line = np.polyval(np.polyfit(rows, velocity.mean(1).numpy(), 1), rows)
    deviation = (velocity.numpy() - line[:, None]).ravel()
    assert prior.energy(velocity)[0] == pytest.approx(0.5 * deviation @ np.linalg.solve(kernel, deviation), rel=1e-6)
