"""Squared slowness in units of velocity, and what it is good for."""

import pytest
import torch

from fwi_lightning.inversion.slowness import stretch, to_slowness, to_velocity
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

VELOCITY = torch.linspace(1500, 4500, 7, dtype=torch.float64)


@pytest.mark.parametrize("unit", [2500.0, 1500 + 400 * torch.arange(7, dtype=torch.float64)])
def test_there_and_back_and_the_derivative(unit):
    slowness = to_slowness(VELOCITY, unit).requires_grad_()
    velocity = to_velocity(slowness, unit)
    torch.testing.assert_close(velocity.detach(), VELOCITY, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(velocity.sum(), slowness)[0], stretch(VELOCITY, unit))


def test_it_is_linear_in_the_inverse_square_and_at_the_unit_moves_as_the_velocity_does():
    slowness, inverse = to_slowness(VELOCITY, 2500), VELOCITY**-2
    torch.testing.assert_close(slowness.diff() / inverse.diff(), torch.full((6,), -0.5 * 2500**3, dtype=torch.float64))
    assert float(to_slowness(torch.tensor(2500.0), 2500)) == 0
    assert float(to_slowness(torch.tensor(2501.0, dtype=torch.float64), 2500)) == pytest.approx(1, abs=1e-3)


def test_a_blurred_edge_becomes_sharp_in_a_straight_line():
    """Half-way from an edge of middling cells to sharp ones the record is half-way, too; not so in velocity."""
    survey = Survey.surface(40, depth=30, shots=2, samples=500, sponge=40)
    sharp = torch.full(survey.grid, 2000.0)
    sharp[14:] = 3200
    sharp[14:16, 10:30:2] = 2000
    blurred = sharp.clone()
    blurred[14:16, 10:30] = to_velocity(to_slowness(torch.tensor([2000.0, 3200.0]), 2500).mean(), 2500)
    record = simulate(sharp, survey)
    left = [
        float(relative_rms(record[None], simulate(between, survey)[None])[0])
        for between in (
            blurred,
            to_velocity(0.5 * (to_slowness(blurred, 2500) + to_slowness(sharp, 2500)), 2500),
            0.5 * (blurred + sharp),
        )
    ]
    assert left[1] == pytest.approx(0.5 * left[0], rel=0.2)
    assert left[2] > left[0]
