"""The fixed point on networks whose error is known."""

import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.inversion import correct

GENERATOR = torch.Generator().manual_seed(0)
OPERATOR = torch.linalg.qr(torch.randn(12, 12, generator=GENERATOR))[0]
TRUTH = 2500 + 500 * torch.rand(5, 1, 3, 4, generator=GENERATOR)


def simulate(maps):
    """A linear ground: (batch, 3, 4) m/s to (batch, 1, 13, 1), the last sample of which does not count."""
    records = maps.flatten(1) @ OPERATOR.T
    return torch.cat([records, torch.zeros(len(records), 1)], dim=1)[:, None, :, None]


def exact(records):
    return (records[:, 0, :-1, 0] @ OPERATOR).reshape(-1, 1, 3, 4)


def test_an_error_that_is_the_same_everywhere_is_taken_off_in_one_step():
    bias = torch.linspace(-200, 200, 12).reshape(3, 4)
    found, _ = correct(simulate(TRUTH[:, 0]), lambda records: exact(records) + bias, simulate, steps=1)
    torch.testing.assert_close(found, TRUTH, rtol=1e-5, atol=0.1)


def test_an_error_in_proportion_falls_with_each_step():
    def predict(records):
        return 2700 + 0.8 * (exact(records) - 2700)

    record = simulate(TRUTH[:, 0])
    errors = [(correct(record, predict, simulate, steps=steps)[0] - TRUTH).abs().mean() for steps in (1, 3, 6)]
    before = (predict(record) - TRUTH).abs().mean()
    assert before > 4 * errors[0] > 16 * errors[1] > 64 * errors[2]


def test_a_sample_that_gets_no_better_keeps_its_map():
    def predict(records):
        # Its error on what it has answered has the other sign: each correction would lead away.
        error = torch.where((exact(records) - TRUTH[: len(records)]).abs().amax() < 1, 100.0, -100.0)
        return exact(records) + error

    record = simulate(TRUTH[:1, 0])
    found, _ = correct(record, predict, simulate)
    torch.testing.assert_close(found, TRUTH[:1] + 100, rtol=1e-5, atol=0.1)


def test_settings_that_do_nothing_are_refused():
    with pytest.raises(UserError, match="needs at least 1 step and 1 factor, got steps=0"):
        correct(simulate(TRUTH[:, 0]), exact, simulate, steps=0)
