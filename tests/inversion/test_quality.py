"""Flags of quality.csv that the record itself raises: no labels, no simulation."""

import pytest
import torch

from fwi_lightning.geology import draw
from fwi_lightning.inversion.judging import look
from fwi_lightning.inversion.quality import inspect_prediction, judge_oneself, misfit, rank_correlation
from fwi_lightning.inversion.state import State
from fwi_lightning.models import Answer
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey(samples=300)


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.from_numpy(draw("CurveFault_B", 4, seed=2))


@pytest.fixture(scope="module")
def gathers(maps) -> torch.Tensor:
    return simulate(maps[:, 0], SURVEY)


def flags(gathers: torch.Tensor, velocity: torch.Tensor, uses_source_velocity: bool = False) -> list[str]:
    rows = inspect_prediction(gathers, velocity, SURVEY, None, uses_source_velocity)
    return [row["flags"] for row in rows]


def test_a_prediction_is_flagged_where_the_shots_say_another_velocity(maps, gathers):
    wrong = maps.clone()
    wrong[0, 0, 1, [0, 17]] += 300  # two shots of five: the median does not mind
    wrong[1, 0, 1] += 40
    wrong[2, 0, 1] += 60
    wrong[3, 0, 2:] += 60
    assert flags(gathers, wrong.clamp(1500, 4500)) == ["", "", "source velocity", ""]
    assert flags(2 * gathers, wrong.clamp(1500, 4500)) == ["", "", "", ""], "a changed record does not tell it"


def test_what_the_model_lacks_is_flagged_only_if_it_asks_for_it(maps, gathers):
    mixed = torch.cat([gathers[:2], 2 * gathers[2:3], torch.zeros_like(gathers[:1])])
    assert flags(mixed, maps) == ["", "", "", "silent"]
    assert flags(mixed, maps, uses_source_velocity=True) == ["", "", "source velocity unavailable", "silent"]


def test_shots_of_another_survey_are_flagged_by_sample(maps, gathers):
    other = simulate(maps[:, 0], Survey(samples=300, shot_columns=(0, 17, 35, 52, 69)))
    noise = 0.3 * torch.randn(gathers.shape, generator=torch.Generator().manual_seed(0))
    mixed = torch.stack([gathers[0], other[1], gathers[2] + noise[2], other[3] + noise[3]])
    assert flags(mixed, maps) == ["", "other survey", "", "other survey"]


def test_heads_give_their_columns_and_models_without_them_none():
    velocity = torch.zeros(2, 1, 3, 4)
    scale = torch.stack([torch.full((1, 3, 4), 100.0), torch.arange(12.0).reshape(1, 3, 4)])
    logits = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]).log_softmax(dim=1)
    rows = judge_oneself(Answer(velocity, scale, logits), ["flat", "curved", "fault"])
    assert [row["expected_mae"] for row in rows] == [100.0, 5.5]
    assert [row["family"] for row in rows] == ["curved", "flat"]
    assert [row["family_probability"] for row in rows] == pytest.approx([0.9094, 0.5761], abs=1e-4)
    assert judge_oneself(Answer(velocity, family=logits), ["a", "b", "c"])[0].keys() == {"family", "family_probability"}
    rows = judge_oneself(Answer(velocity, inconsistency=torch.tensor([0.25, 0.75])), [])
    assert rows == [{"inconsistency": 0.25}, {"inconsistency": 0.75}]
    assert judge_oneself(Answer(velocity), []) == [{}, {}]


def test_a_map_that_does_not_lead_back_to_its_features_is_flagged(maps, gathers):
    given = torch.cat([gathers[:3], torch.zeros_like(gathers[:1])])
    rows = inspect_prediction(given, maps, SURVEY, None, inconsistency=torch.tensor([0.1, 0.49, 0.51, 0.9]))
    assert [row["flags"] for row in rows] == ["", "", "inconsistent", "silent"]


@pytest.mark.parametrize(
    ("expected", "true", "correlation"),
    [
        ([10, 20, 40, 30], [1, 2, 9, 3], 1.0),
        ([3, 2, 1], [1, 2, 3], -1.0),
        ([1, 2, 3], [1, 3, 2], 0.5),
        ([1, 2], [1, 2], None),  # too few
        ([5, 5, 5], [1, 2, 3], None),
    ],
)
def test_rank_correlation_of_expected_and_true_errors(expected, true, correlation):
    quality = [{"name": "a", "index": row, "expected_mae": value} for row, value in enumerate(expected)]
    scores = [{"name": "a", "index": row, "mae": value} for row, value in enumerate(true)]
    assert rank_correlation(quality, scores[::-1]) == (None if correlation is None else pytest.approx(correlation))
    assert rank_correlation([{"name": "a", "index": row} for row in range(4)], scores) is None


def test_the_misfit_of_a_thinned_record_is_that_of_the_whole_one(maps, gathers):
    wrong = maps + 100
    whole, thinned = (misfit(record, wrong, SURVEY) for record in (gathers, gathers[:, :, ::4]))
    torch.testing.assert_close(thinned, whole, rtol=0.02, atol=0)
    states = [State(record, wrong, SURVEY) for record in (gathers, gathers[:, :, ::4])]
    for state in states:
        look(state)
    torch.testing.assert_close(states[1].misfit(), states[0].misfit(), rtol=0.02, atol=0)
