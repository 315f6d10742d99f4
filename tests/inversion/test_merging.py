"""Nearly equal cells become one unknown."""

import torch

from fwi_lightning.inversion.curvature import FEW, gauss_newton_matrix
from fwi_lightning.inversion.merging import merge
from fwi_lightning.survey import Survey

NONE = torch.zeros(24, 30, dtype=torch.bool)


def layers():
    """Two layers whose velocity drifts by 3 m/s a cell; a lens of nine cells in the lower one."""
    velocity = 2000 + 3 * torch.arange(30.0, dtype=torch.float64).expand(24, 30).clone()
    velocity[10:] += 500
    velocity[18:21, 20:23] += 200
    return velocity


def test_layers_become_areas_and_their_edges_and_small_bodies_stay_cells():
    areas = merge(layers(), NONE, 0.01)
    upper, lower = areas.of_cell[0, 0], areas.of_cell[-1, 0]
    assert upper != lower
    assert torch.equal(areas.of_cell[:9], upper.expand(9, 30))
    edge = areas.of_cell[9:11].flatten()
    lens = areas.of_cell[17:22, 19:24].flatten()
    single = torch.cat([edge, lens])
    assert len(single.unique()) == len(single) == 60 + 25
    assert areas.count == 2 + len(single)
    assert int((areas.of_cell == lower).sum()) == 13 * 30 - 25


def test_the_better_the_record_is_explained_the_more_differences_count():
    """3 m/s from cell to cell are one area as long as little is known, and every cell its own in the end."""
    counts = [merge(layers(), NONE, misfit).count for misfit in (1.0, 0.001, 0.0004, 0.0002, 0.0)]
    assert counts[0] == counts[1] == counts[2] == 2 + 60 + 25
    assert counts[3] == counts[4] > 400


def test_an_area_takes_a_velocity_that_is_known():
    held = NONE.clone()
    held[1, 25] = True
    areas = merge(layers(), held, 0.01)
    spread = areas.spread(areas.mean(layers()))
    assert float(spread[0, 0]) == 2075
    assert torch.allclose(spread[-1], torch.tensor(2543.5, dtype=torch.float64), atol=3)
    assert torch.equal(spread[9:11], layers()[9:11])


def test_the_matrix_of_many_areas_is_that_of_their_cells_added_up():
    survey = Survey.surface(30, depth=24, shots=2, samples=200, sponge=40)
    velocity, weight = layers().float(), torch.ones(200)
    areas = torch.arange(24 * 30).reshape(24, 30).clone()
    areas[12:16, 4:9] = areas[12, 4]
    areas = areas.unique(return_inverse=True)[1]
    member = torch.nn.functional.one_hot(areas.flatten()).float()
    assert member.shape[1] > FEW
    cells = gauss_newton_matrix(velocity, survey, weight)
    expected = member.T @ cells @ member
    found = gauss_newton_matrix(velocity, survey, weight, areas)
    scale = torch.outer(expected.diagonal(), expected.diagonal()).sqrt()
    # Where the processor has units for bfloat16, derivatives are rounded to it: before the sum or after it.
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=2e-3)
