"""Calibration on predictions whose errors are drawn: what is expected is what comes."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.calibrating import BEYOND, Observations
from fwi_lightning.inversion.calibration import (
    NETWORK,
    Calibration,
    cell_features,
    expected_mae,
    read_calibration,
    sample_features,
    uncertainty,
    write_calibration,
)
from fwi_lightning.inversion.judging import judge, remember
from fwi_lightning.inversion.regression import LogLinear, fit_log_linear
from fwi_lightning.inversion.state import State
from fwi_lightning.models import Answer
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_model
from tests.models.catalogue import make_module, write_checkpoint

SURVEY = Survey.surface(24, depth=20, shots=2, samples=30)


def drawn(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Predictions, truths and misfits: an error is 500 m/s times the misfit, twice as large in the lower half."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2000 + 50 * torch.arange(20.0)[:, None].expand(samples, 1, 20, 24).clone()
    misfit = torch.rand(samples, generator=generator) * 0.4 + 0.05
    size = (500 * misfit).reshape(-1, 1, 1, 1) * torch.where(torch.arange(20) < 10, 2 / 3, 4 / 3)[:, None]
    uniform = torch.rand(truth.shape, generator=generator) - 0.5
    laplace = -uniform.sign() * (1 - 2 * uniform.abs()).log()
    return truth + size * laplace, truth, {"misfit": misfit}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    prediction, truth, misfits = drawn(120, seed=0)
    seen = Observations()
    for rows in torch.arange(120).split(50):
        known = {name: values[rows] for name, values in misfits.items()}
        seen.add(prediction[rows], truth[rows], sample_features(prediction[rows], misfits=known))
    return Calibration({NETWORK: seen.fit()})


def test_expected_errors_of_other_samples_come_true(calibration):
    prediction, truth, misfits = drawn(200, seed=1)
    expected = expected_mae(calibration.expectations[NETWORK], sample_features(prediction, misfits=misfits))
    true = (prediction - truth).abs().mean(dim=(1, 2, 3)).numpy()
    assert expected.mean() == pytest.approx(true.mean(), rel=0.05)
    np.testing.assert_allclose(expected, 500 * misfits["misfit"], rtol=0.3)
    assert np.corrcoef(expected, true)[0, 1] > 0.9
    assert calibration.expectations[NETWORK].rank_correlation > 0.9


def test_68_percent_of_the_errors_lie_within_the_uncertainty_of_each_depth(calibration):
    prediction, truth, misfits = drawn(200, seed=2)
    one = calibration.expectations[NETWORK]
    expected = expected_mae(one, sample_features(prediction, misfits=misfits))
    map_of = uncertainty(one, cell_features(prediction, expected))
    within = (prediction - truth).abs().numpy() <= map_of
    assert within.mean() == pytest.approx(0.68, abs=0.03)
    assert one.coverage == pytest.approx(0.68, abs=0.03)
    assert np.median(map_of[:, :, 15:]) > 1.4 * np.median(map_of[:, :, :5])


def test_what_is_not_known_is_done_without(calibration):
    prediction, _, misfits = drawn(50, seed=3)
    one = calibration.expectations[NETWORK]
    without = expected_mae(one, sample_features(prediction))
    assert without.shape == (50,)
    assert not np.allclose(without, expected_mae(one, sample_features(prediction, misfits=misfits)), rtol=0.01)


def test_the_fit_is_the_most_likely_one():
    rng = np.random.default_rng(0)
    features = {"a": rng.normal(size=300), "b": rng.normal(size=300)}
    errors = np.exp(3 + 0.8 * features["a"] - 0.3 * features["b"]) * rng.exponential(size=300)
    fit = fit_log_linear(features, errors, ["a", "b"])
    columns = np.stack([(x - x.mean()) / x.std() for x in features.values()])

    def cost(beta):
        logarithm = beta[0] + beta[1:] @ columns
        return (errors * np.exp(-logarithm) + logarithm).mean() + 0.005 * (beta[1:] ** 2).sum()

    best = minimize(cost, np.array([3.0, 0, 0])).x
    assert [fit.intercept, *fit.slopes] == pytest.approx(best.tolist(), abs=1e-3)
    assert fit.predict(features).mean() == pytest.approx(errors.mean(), rel=0.05)
    assert LogLinear.from_dict(fit.to_dict()) == fit


def test_a_feature_that_never_differs_does_no_harm():
    errors = np.array([1.0, 2.0, 4.0])
    fit = fit_log_linear({"same": np.full(3, 7.0)}, errors, ["same"])
    assert fit.predict({"same": np.array([7.0])}) == pytest.approx([7 / 3])


def state(calibration: Calibration | None, misfit: list[float]) -> State:
    prediction, _, _ = drawn(len(misfit), seed=4)
    gathers = torch.ones(len(misfit), *SURVEY.gathers_shape)
    return State(gathers, prediction, SURVEY, calibration=calibration, known_misfit=torch.tensor(misfit))


def test_an_answer_unlike_all_that_validation_saw_is_flagged(calibration):
    one = calibration.expectations[NETWORK]
    rows, map_of = judge(state(calibration, [0.2, 20.0]))
    assert rows[0]["flags"] == []
    assert rows[1]["flags"] == ["aberrant", "misfit beyond validation"]
    assert rows[1]["expected_mae"] > one.largest_mae
    assert one.largest_misfit == pytest.approx(BEYOND * 0.45, rel=0.05)
    assert map_of.shape == (2, 1, 20, 24)


def test_a_step_that_nothing_is_known_of_leaves_the_expectation_of_the_one_before(calibration):
    plain = judge(state(calibration, [0.2, 0.3]))[0]
    later = state(calibration, [0.2, 0.3])
    remember(later, NETWORK)
    later.improve(later.velocity.mean(dim=(2, 3), keepdim=True).expand_as(later.velocity), torch.tensor([0.01, 0.02]))
    remember(later, "refine")
    rows = judge(later)[0]
    assert [row["expected_mae"] for row in rows] == [row["expected_mae"] for row in plain]
    assert {row["expected_mae_of"] for row in rows} == {NETWORK}


def test_nothing_is_said_without_a_calibration_nor_of_silence(calibration):
    assert judge(state(None, [0.2])) == ([{}], None)
    silent = state(calibration, [0.2, 0.2])
    silent.gathers[1] = 0
    assert judge(silent)[0][1] == {}


def test_heads_are_features_too():
    velocity = torch.full((2, 1, 4, 4), 2500.0)
    scale = torch.stack([torch.full((1, 4, 4), 10.0), torch.full((1, 4, 4), 100.0)])
    answer = Answer(velocity, scale, torch.tensor([[0.0, 0.0], [9.0, -9.0]]), torch.tensor([0.1, 0.2]))
    found = sample_features(velocity, answer, spread=2 * scale)
    assert found["scale"].tolist() == pytest.approx(np.log([10, 100]).tolist())
    assert found["spread"].tolist() == pytest.approx(np.log([20, 200]).tolist())
    assert found["inconsistency"].tolist() == pytest.approx(np.log([0.1, 0.2]).tolist())
    assert found["doubt"].tolist() == pytest.approx(np.log([0.5, 0.001]).tolist())


def test_too_few_samples():
    prediction, truth, misfits = drawn(10, seed=5)
    seen = Observations()
    seen.add(prediction, truth, sample_features(prediction, misfits=misfits))
    with pytest.raises(UserError, match="at least 20 samples with their truth, got 10"):
        seen.fit()


def test_a_checkpoint_keeps_it_and_predicts_as_before(calibration, tmp_path):
    path = write_checkpoint(make_module("shallow_unet_small", survey=Survey(samples=300)), tmp_path / "a.ckpt")
    assert read_calibration(path) is None
    gathers = torch.randn(1, 5, 300, 70)
    before = load_model(path).predict(gathers)
    whole = Calibration(calibration.expectations, {"field": {"tie": [1.0, 2.0]}, "families": [""], "changes": {}})
    write_calibration(path, whole)
    assert read_calibration(path) == whole
    assert torch.equal(load_model(path).predict(gathers), before)
    torch.save(torch.load(path, weights_only=True) | {"calibration": {"other": 1}}, path)
    with pytest.raises(UserError, match=r"of another version: make it again with python -m fwi_lightning calibrate"):
        read_calibration(path)
