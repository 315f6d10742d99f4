"""Flaws made on purpose are named, and clean records have none."""

import pytest
import torch

from fwi_lightning.geology import draw
from fwi_lightning.inversion.flaws import find_flaws
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey(samples=300)


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    maps = [draw(family, 2, seed=3)[:, 0] for family in ("FlatVel_A", "CurveFault_B")]
    return simulate(torch.cat([torch.from_numpy(velocity) for velocity in maps]), SURVEY)


def noisy(clean: torch.Tensor) -> torch.Tensor:
    return clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def dead(record: torch.Tensor) -> torch.Tensor:
    changed = record.clone()
    changed[:, 2, :, 30] = 0
    return changed


def without_a_shot(record: torch.Tensor) -> torch.Tensor:
    changed = record.clone()
    changed[:, 2] = 0
    return changed


FLAWS = {
    "": lambda record: record,
    "dead traces": dead,
    "dead shots": without_a_shot,
    "clipped": lambda record: record.clamp(-8, 8),
    "reversed polarity": lambda record: -record,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaws_are_named(clean, flaw):
    wanted = [flaw] if flaw else []
    assert find_flaws(FLAWS[flaw](clean), SURVEY) == [wanted] * len(clean)
    assert find_flaws(FLAWS[flaw](clean.half().float()), SURVEY) == [wanted] * len(clean)
    if flaw not in ("dead traces", "dead shots", "clipped"):  # which noise hides
        assert find_flaws(noisy(FLAWS[flaw](clean)), SURVEY) == [wanted] * len(clean)


def test_a_gain_is_measured_where_the_record_is_clean(clean):
    assert find_flaws(2 * clean, SURVEY) == [["gain 2"]] * len(clean)
    assert find_flaws(-0.5 * clean, SURVEY) == [["reversed polarity", "gain 0.5"]] * len(clean)
    assert find_flaws(noisy(2 * clean), SURVEY) == [[]] * len(clean), "noise hides the first samples"


def test_a_silent_record_has_no_flaws_of_its_own(clean):
    assert find_flaws(torch.zeros_like(clean[:2]), SURVEY) == [[], []]
