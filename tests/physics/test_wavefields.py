"""The stored fields against the record, and against the plain scheme."""

import numpy as np
import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.physics.wavefields import wavefields
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(24, depth=20, shots=3, samples=200, sponge=12)


@pytest.fixture(scope="module")
def velocity():
    generator = torch.Generator().manual_seed(0)
    return 2000 + 1500 * torch.rand(SURVEY.grid, generator=generator)


def test_the_receivers_hear_the_field_where_they_stand(velocity):
    fields = wavefields(velocity, SURVEY, every=5, rows=range(-3, 23), columns=range(-12, 36))
    assert fields.shape == (3, 26, 48, 40)
    heard = fields[:, 3 + SURVEY.receiver_row, 12:-12].transpose(1, 2)
    record = simulate(velocity, SURVEY)[:, ::5]
    np.testing.assert_allclose(heard, record, atol=1e-5 * float(record.abs().max()))


def test_a_step_from_two_fields_is_the_third(velocity):
    """In the middle of the map, away from the source: p+ - 2 p + p- = (v dt)^2 lap p."""
    fields = wavefields(velocity, SURVEY)[1].double()
    p = fields[..., 120]
    near = p[9, 10] + p[11, 10] + p[10, 9] + p[10, 11]
    far = p[8, 10] + p[12, 10] + p[10, 8] + p[10, 12]
    laplacian = (4 / 3 * near - far / 12 - 5 * p[10, 10]) / SURVEY.spacing**2
    second = fields[10, 10, 121] - 2 * fields[10, 10, 120] + fields[10, 10, 119]
    assert float(second) == pytest.approx(float((velocity[10, 10] * SURVEY.time_step) ** 2 * laplacian), rel=1e-3)


def test_some_rows_and_columns_are_those_of_all(velocity):
    rows, columns = [-12, -1, 0, 7, 19, 31], [35, 24, 3, -5]
    everything = wavefields(velocity, SURVEY, 7, range(-12, 32), range(-12, 36))
    expected = everything[:, [row + 12 for row in rows]][:, :, [column + 12 for column in columns]]
    assert torch.equal(wavefields(velocity, SURVEY, 7, rows, columns), expected)
    assert torch.equal(wavefields(velocity, SURVEY, 7), everything[:, 12:-12, 12:-12])


@pytest.mark.parametrize(
    ("every", "rows", "columns", "words"),
    [
        (0, None, None, "every >= 1"),
        (1, [-13], None, "-12 to 31 here, got -13 to -13"),
        (1, None, [0, 36], "-12 to 35 here, got 0 to 36"),
    ],
)
def test_what_cannot_be_stored_is_refused(velocity, every, rows, columns, words):
    with pytest.raises(UserError, match=words):
        wavefields(velocity, SURVEY, every, rows, columns)
