"""Gauss-Newton steps, and those that follow each of them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.inversion import newton
from fwi_lightning.inversion.newton import Areas, GaussNewton, mended
from fwi_lightning.inversion.objective import Objective
from fwi_lightning.inversion.priors import TEXTURES, GaussianProcess
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=3, samples=350, sponge=30)


def definite(size, generator):
    factor = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return factor @ factor.T + torch.eye(size, dtype=torch.float64)


def test_pairs_mend_an_inverse_as_the_bfgs_formula_does():
    generator = torch.Generator().manual_seed(0)
    true, first = definite(12, generator), torch.linalg.inv(definite(12, generator))
    moves = torch.randn(4, 12, dtype=torch.float64, generator=generator)
    pairs = [(moved, true @ moved) for moved in moves]
    dense, unit = first, torch.eye(12, dtype=torch.float64)
    for moved, turned in pairs:
        share = 1 / (moved @ turned)
        left = unit - share * torch.outer(moved, turned)
        dense = left @ dense @ left.T + share * torch.outer(moved, moved)
    slope = torch.randn(12, dtype=torch.float64, generator=generator)
    assert mended(first.matmul, pairs, slope) == pytest.approx(dense @ slope, rel=1e-9)
    assert mended(first.matmul, pairs, pairs[-1][1]) == pytest.approx(moves[-1], rel=1e-9)


def test_the_steps_that_follow_reach_what_one_step_does_not():
    rough = gaussian_filter(np.random.default_rng(0).standard_normal((64, 64)), 3.48 / 2**0.5)[20:44, 20:50]
    truth = 2200 + 40 * torch.arange(24.0)[:, None] + torch.from_numpy(183 * rough / rough.std()).float()
    truth = truth.clamp(1500, 4500)
    record, near = simulate(truth, SURVEY), torch.from_numpy(gaussian_filter(truth.numpy(), 1))
    cells = torch.arange(truth.numel()).reshape(truth.shape)
    misfit = []
    for following in (0, 20):
        objective = Objective(record, near, SURVEY, (1500, 4500), 300, 0, None)
        areas, prior = Areas(cells, objective.held), GaussianProcess(objective.start, TEXTURES["Style_A"])
        steps = GaussNewton(objective, areas, lambda *_, prior=prior: prior, 0.01, following=following)
        found = areas.spread(steps.run(areas.mean(objective.start), 1))
        misfit.append(objective.value(found))
    assert misfit[1] < 0.5 * misfit[0]


def test_a_step_that_is_too_long_is_stiffened_before_it_is_shortened(monkeypatch):
    """With a tenth of the curvature the whole step overshoots; damped as much as the diagonal, it need not be cut."""
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[10:] = 2600
    near = torch.from_numpy(gaussian_filter(truth.numpy(), 2))
    exact, lengths = newton.gauss_newton_matrix, []
    monkeypatch.setattr(newton, "gauss_newton_matrix", lambda *settings: 0.1 * exact(*settings))
    search = GaussNewton._search

    def watched(self, *arguments):
        found, length = search(self, *arguments)
        lengths.append((self._damping, length, found is not None))
        return found, length

    monkeypatch.setattr(GaussNewton, "_search", watched)
    objective = Objective(simulate(truth, SURVEY), near, SURVEY, (1500, 4500), 300, 0, None)
    areas = Areas(torch.arange(truth.numel()).reshape(truth.shape), objective.held)
    prior = GaussianProcess(objective.start, TEXTURES["Style_A"])
    begin = areas.mean(objective.start)
    steps = GaussNewton(objective, areas, lambda *_: prior, 0.01, following=0)
    found = steps.run(begin, 1)
    assert objective.value(areas.spread(found)) < objective.value(areas.spread(begin))
    assert [damping for damping, *_ in lengths] == pytest.approx([0.01, 0.1, 1.0][: len(lengths)])
    assert len(lengths) > 1
    assert [worked for *_, worked in lengths] == [False] * (len(lengths) - 1) + [True]
