"""Layers that one curve bends, or one fault offsets, are found from a start without it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.geology.layers import fill
from fwi_lightning.inversion import refine
from fwi_lightning.inversion.bending import Bent, _curves, _faults, _sines, bend, bend_map
from fwi_lightning.inversion.objective import Enough, Objective
from fwi_lightning.inversion.refinement import prior_of
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(42, depth=30, shots=3, samples=400, sponge=30)


def ground(curve):
    """A layer over two others, bent."""
    rows = np.arange(30)[:, None] + curve @ _sines(42)
    return fill(rows, np.array([9, 19]), np.array([2000, 2800, 2200]))


def test_bends_are_found_from_a_start_without_them():
    curve = np.array([0.0, 1.5, -2.0, 0.5, 0.0, 1.0])
    truth = torch.from_numpy(ground(curve)).float()
    flat = torch.from_numpy(ground(np.zeros(6))).float()
    record = simulate(truth, SURVEY)
    apart = float((flat - truth).abs().mean())
    found = refine(record, flat, SURVEY, seconds=300, misfit=0.005, prior="curved")
    assert found.misfit <= 0.005 < 0.1 < found.start_misfit
    assert float((found.velocity - truth).abs().mean()) < 0.3 * apart


def test_bends_are_found_to_the_last_cell_from_a_map_that_is_nearly_right():
    truth = torch.from_numpy(ground(np.array([0.0, 1.5, -2.0, 0.5, 0.0, 1.0]))).float()
    nearly = torch.from_numpy(gaussian_filter(truth.numpy(), 1))
    objective = Objective(simulate(truth, SURVEY), nearly, SURVEY, (1500, 4500), 300, 1e-5, None)
    with pytest.raises(Enough):
        bend_map(objective, objective.start)
    assert float((objective.found.velocity[0] - truth).abs().max()) < 1


def test_a_shape_that_explains_nothing_is_not_kept():
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[8:] = 2600
    truth[8:20, 10:20] = 3400  # no curve makes that
    objective = Objective(simulate(truth, SURVEY), torch.full(SURVEY.grid, 2000.0), SURVEY, (1500, 4500), 300, 0, None)
    assert not bend(objective)


def test_sines_make_up_each_curve_that_is_drawn():
    _, tried = _curves(np.full((70, 70), 2000.0), (1500, 4500))
    curves = np.stack([bent.curve() for bent in tried])
    assert curves.shape == (300, 70)
    assert 2.5 < float(np.abs(curves).max(axis=1).mean()) < 12


def test_bends_are_read_off_a_map_that_has_them():
    curve = np.array([0.0, 1.5, -2.0, 0.5, 0.0, 1.0])
    bent, _ = _curves(ground(curve), (1500, 4500))
    found, true = bent.curve(), curve @ _sines(42)
    assert np.corrcoef(found, true)[0, 1] > 0.98
    assert np.abs(bent.velocity(30) - ground(curve)).mean() < 60


def test_a_profile_without_a_curve_is_flat_and_ends_evenly():
    bent = Bent(np.array([2.0, 4.0]), np.array([1500.0, 2500.0]), np.zeros(6), _sines(42))
    velocity = bent.velocity(6)
    assert velocity[:, 0].tolist() == [1500, 1500, 1500, 2000, 2500, 2500]
    assert (velocity == velocity[:, :1]).all()


def faulted(middle, lean, throw):
    """A layer over two others that one fault offsets."""
    row, column = np.ogrid[:30, :42]
    rows = row + throw * (column >= middle + lean * (row - 14.5))
    return fill(rows, np.array([9, 19]), np.array([2000, 2800, 3600]))


def test_a_fault_is_read_off_a_map_that_has_it():
    truth = faulted(20, 0.3, 5)
    bent, others = _faults(truth, (1500, 4500))
    assert bent.fault == pytest.approx([20, 0.3, 14 * 30 / 70], abs=1.5)
    assert np.abs(bent.velocity(30) - truth).mean() < 60
    assert len(others) == 150


def test_a_fault_is_found_to_the_last_cell_from_a_smooth_start():
    truth = torch.from_numpy(faulted(20.3, 0.25, 4)).float()
    record = simulate(truth, SURVEY)
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), 3))
    found = refine(record, smooth, SURVEY, seconds=300, misfit=1e-5, prior="faulted")
    assert found.start_misfit > 0.1
    assert found.misfit <= 1e-5
    assert (found.velocity == truth).all()


def test_left_of_a_fault_nothing_moves():
    bent = Bent(np.arange(10.0), 1500 + 100 * np.arange(10.0), np.array([3.0, 0.0, 2.0]), np.zeros((0, 6)))
    velocity = bent.velocity(4)
    assert velocity[:, 0] == pytest.approx([1500, 1600, 1700, 1800], abs=1)
    assert velocity[:, 5] == pytest.approx([1700, 1800, 1900, 2000], abs=5)


@pytest.mark.parametrize(
    ("family", "prior"),
    [
        ("CurveVel_A", "curved"),
        ("FlatFault_A", "faulted"),
        ("Style_B", "Style_B"),
        ("CurveFault_A", "auto"),
        ("x", "auto"),
    ],
)
def test_the_family_names_the_prior(family, prior):
    assert prior_of(family) == prior
