"""The misfit of one sample, of the whole record and of its first part."""

import pytest
import torch

from fwi_lightning.inversion.objective import Enough, Objective
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=3, samples=300, sponge=30)


@pytest.fixture(scope="module")
def truth():
    velocity = torch.full(SURVEY.grid, 2000.0)
    velocity[12:] = 2600
    return velocity


def objective_of(truth, seen):
    start = torch.full(SURVEY.grid, 2000.0)
    return Objective(simulate(truth, SURVEY), start, SURVEY, (1500, 4500), 400, 1e-6, lambda *row: seen.append(row))


def test_a_part_is_the_misfit_of_the_first_samples_and_is_told_of(truth):
    seen = []
    objective = objective_of(truth, seen)
    with objective.within(0.5) as part:
        value, slope = part.gradient(part.start)
        assert part.survey.samples == 150
    assert len(seen) == 1
    assert objective.found.history == []
    residual = simulate(part.start.float(), SURVEY)[:, :149] - simulate(truth, SURVEY)[:, :149]
    time = torch.arange(149) * SURVEY.time_step
    expected = 0.5 * float((time[:, None] * residual).double().square().sum()) / (3 * 150 * 30)
    assert value == pytest.approx(expected, rel=1e-4)
    assert float(slope[14:].abs().max()) > 0


def test_all_of_the_record_is_the_objective_itself(truth):
    objective = objective_of(truth, [])
    with objective.within(1) as part:
        assert part is objective


def test_what_a_part_has_found_when_the_budget_ends_is_judged_on_the_whole_record(truth):
    objective = objective_of(truth, [])

    def spend():
        with objective.within(0.5) as part:
            part.value(truth.double())
            raise Enough

    with pytest.raises(Enough):
        spend()
    assert torch.equal(objective.found.velocity[0], truth)
    assert objective.found.misfit < 1e-6


def test_a_map_that_explains_less_is_taken_within_a_factor_but_never_below_the_start(truth):
    objective = objective_of(truth, [])
    for change in (1.0, 3.0):
        objective.adopt((truth + change)[None])
    better = objective.found.velocity
    assert torch.equal(better[0], truth + 1)
    objective.adopt((truth + 3)[None], factor=1.5)
    assert objective.found.velocity is better
    objective.adopt((truth + 3)[None], factor=5)
    assert torch.equal(objective.found.velocity[0], truth + 3)
    objective.adopt(torch.full((1, *SURVEY.grid), 4000.0), factor=1e9)
    assert torch.equal(objective.found.velocity[0], truth + 3)
