"""Ensembles: weights against known optima, what is fitted out of fold, and the file against its members."""

import logging
import shutil

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import spearmanr

from fwi_lightning import load_model
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.ensemble import Ensemble, write_ensemble
from fwi_lightning.inversion.ensemble.blender import FAMILY, PIXEL, SAMPLE, STATIC, Blender
from fwi_lightning.inversion.ensemble.comparison import Comparison, choose, compare
from fwi_lightning.inversion.ensemble.features import QUARTERS, Inputs, describe, read_record
from fwi_lightning.inversion.ensemble.fitting import Samples, Settings, _expect, fit, true_ssim
from fwi_lightning.inversion.ensemble.model import MemberFile, Members
from fwi_lightning.inversion.ensemble.out_of_fold import Predictions, group_velocity
from fwi_lightning.inversion.ensemble.rows import fill_rows
from fwi_lightning.inversion.ensemble.weights import SAMPLERS, Blends, normalise, search, solve, weighted_median
from fwi_lightning.survey import Survey
from tests.models.catalogue import make_module, write_checkpoint

SURVEY = Survey(
    grid=(20, 24), samples=60, shot_columns=(0, 12, 23), receiver_columns=tuple(range(24)), time_step=0.004, sponge=20
)


def opposed(samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three members: errors d, -3d, and one that is far off; the truth is 3/4 of the first and 1/4 of the second."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(3000, 500, (samples, 20, 24)).astype(np.float32)
    error = draw.normal(0, 100, truth.shape).astype(np.float32)
    return np.stack([truth + error, truth - 3 * error, truth + 900]), truth


def test_convex_optimisation_finds_the_weights_that_cancel_the_errors():
    blends = Blends(*opposed(6))
    assert solve(blends) == pytest.approx([0.75, 0.25, 0], abs=0.01)
    assert blends.mae([0.75, 0.25, 0]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_is_on_the_simplex_repeats_itself_and_beats_every_start(sampler):
    velocity, truth = opposed(6)
    velocity += np.random.default_rng(1).normal(0, 150, velocity.shape).astype(np.float32)
    blends = Blends(velocity, truth)
    weights = search(blends, 30, [sampler])
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(weights, search(blends, 30, [sampler]))
    starts = [np.full(3, 1 / 3), *np.eye(3), solve(blends)]
    assert blends.mae(weights) <= min(map(blends.mae, starts)) + 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_search_itself_gets_close_without_the_solution(sampler, monkeypatch):
    monkeypatch.setattr("fwi_lightning.inversion.ensemble.weights.solve", lambda blends: np.full(3, 1 / 3))
    blends = Blends(*opposed(6))
    assert blends.mae(search(blends, 80, [sampler])) < 0.35 * blends.mae([1, 0, 0])


def test_a_single_member_has_the_weight_one_and_an_unknown_sampler_is_named():
    velocity, truth = opposed(2)
    assert search(Blends(velocity[:1], truth), 5).tolist() == [1.0]
    with pytest.raises(UserError, match="tpe, cmaes, got 'grid'"):
        search(Blends(velocity, truth), 5, ["grid"])
    assert normalise([-1, 0, 0]).tolist() == pytest.approx([1 / 3] * 3)


def test_the_weighted_median_minimises_the_weighted_distance():
    draw = np.random.default_rng(2)
    velocity, weights = draw.normal(0, 1, (5, 7, 3)).astype(np.float32), draw.dirichlet(np.ones(5))
    costs = np.array([(weights[:, None, None] * np.abs(velocity - one)).sum(axis=0) for one in velocity])
    best = np.take_along_axis(velocity, costs.argmin(axis=0)[None], 0)[0]
    np.testing.assert_array_equal(weighted_median(velocity, weights), best)
    np.testing.assert_array_equal(weighted_median(velocity, np.full(5, 0.2)), np.median(velocity, axis=0))


def test_rows_go_on_where_a_first_start_was_stopped(tmp_path):
    asked = []

    def compute(places: range, stop: int = 6) -> dict[str, np.ndarray]:
        if places.start >= stop:
            raise KeyboardInterrupt
        asked.extend(places)
        return {"double": np.array([[2.0 * place] for place in places], np.float32)}

    with pytest.raises(KeyboardInterrupt):
        fill_rows(tmp_path / "a", {"double": (10, 1)}, compute, "rows", 3)
    assert asked == list(range(6))
    found = fill_rows(tmp_path / "a", {"double": (10, 1)}, lambda places: compute(places, 99), "rows", 3)
    assert asked == list(range(10)), "nothing is computed twice"
    np.testing.assert_array_equal(found["double"][:, 0], 2.0 * np.arange(10))
    fill_rows(tmp_path / "a", {"double": (10, 1)}, lambda _: pytest.fail("computed again"), "rows", 3)


def test_a_group_answers_with_those_members_that_did_not_see_the_sample():
    maps = np.arange(4, dtype=np.float32)[:, None, None] + np.zeros((4, 2, 2), np.float32)
    first = Predictions(np.array([0, 1, 4, 9]), maps)
    second = Predictions(np.array([1, 2, 9]), 10 + maps[:3])
    found = group_velocity([first, second], np.array([0, 1, 2, 9]))
    assert found[:, 0, 0].tolist() == [0, (1 + 10) / 2, 11, (3 + 12) / 2]


def telling(count: int, told: bool, seed: int = 0) -> Samples:
    """Two members, one of which is good at a time: at which sample which, the loudness of the record tells or not."""
    draw = torch.Generator().manual_seed(seed)
    truth = 3000 + 400 * torch.randn(count, 1, 1, generator=draw) + 200 * torch.randn(count, 20, 24, generator=draw)
    first = torch.arange(count) % 2 == 0
    size = torch.stack([torch.where(first, 30.0, 400.0), torch.where(first, 400.0, 30.0)])[..., None, None]
    noise = torch.randn(2, count, 20, 24, generator=draw)
    record = 0.1 * torch.randn(count, 1 + QUARTERS + SURVEY.shots, generator=draw).abs()
    record[:, 1 + QUARTERS :] = 0
    if told:
        record[:, 0] += 2.0 * first
    # Both members are equally rough and equally far from their mean: only the record can tell them apart.
    velocity = truth + size * noise.sign() if told else truth + 200 * noise
    inputs = Inputs(velocity, record)
    fold = torch.arange(count) // 2 % 3
    family = torch.zeros(count, dtype=torch.int64)
    return Samples(inputs, truth, family, fold, describe(inputs, SURVEY), true_ssim(velocity, truth))


@pytest.fixture(scope="module")
def told() -> Comparison:
    settings = Settings(trials=8, family_trials=4, steps=60, methods=(SAMPLE,))
    return compare(telling(60, told=True), SURVEY, 1, settings)


@pytest.mark.slow
def test_weights_per_sample_follow_what_tells_the_better_member(told):
    assert told.mae(SAMPLE) < 0.5 * told.mae(STATIC)
    assert told.gates[SAMPLE][0, ::2].mean() > 0.8
    assert told.gates[SAMPLE][0, 1::2].mean() < 0.2
    assert told.mae(STATIC) <= min(told.members["mae"].mean(axis=1)) + 1e-3


@pytest.mark.slow
def test_weights_per_cell_follow_where_a_member_is_good():
    samples = telling(24, told=False)
    upper = torch.arange(20)[:, None] < 10
    error = samples.inputs.velocity - samples.truth
    first, second = error[0] * torch.where(upper, 0.1, 2.0), error[1] * torch.where(upper, 2.0, 0.1)
    inputs = Inputs(samples.truth + torch.stack([first, second]), samples.inputs.record)
    changed = Samples(
        inputs,
        samples.truth,
        samples.family,
        samples.fold,
        describe(inputs, SURVEY),
        true_ssim(inputs.velocity, samples.truth),
    )
    settings = Settings(trials=3, family_trials=2, steps=50, methods=(PIXEL,))
    blender = fit(changed, SURVEY, 1, settings).blender
    with torch.no_grad():
        blend = blender(inputs, PIXEL)
        static = blender(inputs, STATIC)
    stopping = samples.fold == 0  # not trained on
    errors = [float((one.velocity - samples.truth)[stopping].abs().mean()) for one in (blend, static)]
    assert errors[0] < 0.7 * errors[1]
    assert blend.weights[0, :, :8].mean() > 0.7


@pytest.mark.slow
def test_predicted_ssim_ranks_the_members_maps(told):
    true, predicted = told.members["ssim"].ravel(), told.predicted_member_ssim.ravel()
    assert spearmanr(true, predicted).statistic > 0.7


@pytest.mark.slow
def test_nothing_is_fitted_on_what_it_is_scored_on():
    samples = telling(36, told=True)
    plain = Settings(trials=3, family_trials=2, steps=20, methods=(SAMPLE,))
    before = compare(samples, SURVEY, 1, plain)
    truth, inside = samples.truth.clone(), samples.fold == 1
    truth[inside] += 500
    ssim = samples.ssim.clone()
    ssim[:, inside] = 0
    spoilt = Samples(samples.inputs, truth, samples.family, samples.fold, samples.features, ssim)
    after = compare(spoilt, SURVEY, 1, plain)
    rows = inside.numpy()
    np.testing.assert_array_equal(after.weights[1], before.weights[1])
    np.testing.assert_array_equal(after.gates[SAMPLE][:, rows], before.gates[SAMPLE][:, rows])
    np.testing.assert_array_equal(after.predicted_ssim[rows], before.predicted_ssim[rows])
    assert not np.array_equal(after.weights[0], before.weights[0]), "they do learn from the others"


@pytest.mark.parametrize(
    ("mae", "kept"),
    [
        ({STATIC: 10, FAMILY: 11, SAMPLE: 10, PIXEL: 12}, STATIC),
        ({STATIC: 10, FAMILY: 9, SAMPLE: 9.5, PIXEL: 12}, FAMILY),
        ({STATIC: 10, SAMPLE: 9.5, PIXEL: 8}, PIXEL),
        ({STATIC: 10}, STATIC),
    ],
)
def test_a_more_complicated_method_is_kept_only_if_it_scores_better(mae, kept):
    none = np.zeros((1, 1))
    scores = {name: {"mae": np.full(4, float(value))} for name, value in mae.items()}
    assert choose(Comparison(scores, {}, none, none, none, none, none)) == kept


def test_a_gain_within_chance_keeps_the_simpler_method():
    draw, none = np.random.default_rng(0), np.zeros((1, 1))
    noisy = draw.normal(0, 5, 100)
    scores = {STATIC: {"mae": np.full(100, 50.0)}, SAMPLE: {"mae": 50 + noisy - noisy.mean() - 0.3}}
    assert choose(Comparison(scores, {}, none, none, none, none, none)) == STATIC
    scores[SAMPLE]["mae"] = 50 + noisy - noisy.mean() - 1.0
    assert choose(Comparison(scores, {}, none, none, none, none, none)) == SAMPLE


def test_expected_errors_are_calibrated():
    samples = telling(60, told=False)
    blender = fit(samples, SURVEY, 1, Settings(trials=3, family_trials=2, steps=10, methods=())).blender
    with torch.no_grad():
        blend = blender(samples.inputs, STATIC)
    assert float(blend.scale.mean()) == pytest.approx(float((blend.velocity - samples.truth).abs().mean()), rel=0.05)


def test_expected_errors_follow_the_predicted_ssim_where_members_err_alike():
    """Their spread tells nothing: it is the same everywhere, as is what they agree in being wrong by."""
    samples = telling(200, told=False)
    draw = torch.Generator().manual_seed(0)
    errors = torch.full((200, 4, 4), 50.0)
    ssim = torch.rand(200, generator=draw)
    mae = 400 * (-2 * ssim).exp()
    blender = Blender(2, 1, SURVEY, samples.features.own_blocks, samples.features.shared_blocks)
    torch.testing.assert_close(blender.expected(errors, ssim), errors)  # not fitted yet
    _expect(blender, errors, ssim, mae)
    found = blender.expected(errors, ssim)
    assert spearmanr(found.mean(dim=(1, 2)), mae).statistic > 0.99
    torch.testing.assert_close(found[:, 1, 2], mae, rtol=0.1, atol=0)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("members")
    names = (("shallow_unet_small", []), ("shallow_unet", ["model.amplitudes=trace"]), ("shallow_unet_small", []))
    paths = []
    for number, (name, words) in enumerate(names):
        module = make_module(name, *words, survey=SURVEY)
        with torch.no_grad():
            list(module.model.parameters())[-1].add_(0.1 * number)
        paths.append(write_checkpoint(module, folder / f"{number}.ckpt"))
    return paths


@pytest.fixture(scope="module")
def gathers() -> torch.Tensor:
    return torch.randn(3, *SURVEY.gathers_shape, generator=torch.Generator().manual_seed(3))


def fitted(checkpoints: list, gathers: torch.Tensor) -> Ensemble:
    """An ensemble of two groups, the first and the third checkpoint being one."""
    maps = [load_model(path).predict(gathers)[:, 0] for path in checkpoints]
    velocity = torch.stack([(maps[0] + maps[2]) / 2, maps[1]])
    record = read_record(gathers, SURVEY)
    inputs = Inputs(velocity.repeat(1, 4, 1, 1), record.repeat(4, 1))
    truth = inputs.velocity.mean(dim=0) + 50
    samples = Samples(
        inputs,
        truth,
        torch.arange(12) % 2,
        torch.arange(12) % 3,
        describe(inputs, SURVEY),
        true_ssim(inputs.velocity, truth),
    )
    blender = fit(samples, SURVEY, 2, Settings(trials=3, family_trials=2, steps=5, methods=())).blender
    blender.take_weights([0.25, 0.75])
    files = [MemberFile(path, group) for path, group in zip(checkpoints, (0, 1, 0), strict=True)]
    return Ensemble(SURVEY, Members(files, SURVEY, 1000.0), blender, ["flat", "curved"])


def test_the_file_is_a_model_like_any_other_and_moves_with_its_members(checkpoints, gathers, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(checkpoints[0].parent, folder / "runs")
    moved = [folder / "runs" / path.name for path in checkpoints]
    (folder / "out").mkdir()
    write_ensemble(fitted(moved, gathers), folder / "out" / "ensemble.ckpt")
    shutil.move(folder, tmp_path / "there")
    model = load_model(tmp_path / "there" / "out" / "ensemble.ckpt")
    maps = [load_model(path).predict(gathers) for path in checkpoints]
    answer = model.predict_answer(gathers, batch_size=2)
    expected = 0.25 * (maps[0] + maps[2]) / 2 + 0.75 * maps[1]
    torch.testing.assert_close(answer.velocity, expected, rtol=1e-5, atol=0.01)
    assert answer.scale.shape == answer.velocity.shape
    assert answer.family.shape == (3, len(model.families))
    assert answer.ssim.isfinite().all()
    one = model.predict(gathers[0].numpy())
    assert isinstance(one, np.ndarray)
    np.testing.assert_allclose(one, expected[0], rtol=1e-4)
    half = model.lower(torch.bfloat16).predict(gathers)
    assert 0 < float((half - expected).abs().max()) < 100
    with pytest.raises(UserError, match="gathers have shape"):
        model.predict(gathers[:, :2])


def test_members_that_are_missing_or_fail_are_left_out(checkpoints, gathers, tmp_path, caplog):
    maps = [load_model(path).predict(gathers) for path in checkpoints]
    model = fitted(checkpoints, gathers)
    files = model.members.files
    with caplog.at_level(logging.WARNING):
        model.members.files = [files[0], MemberFile(tmp_path / "gone.ckpt", 1), files[2]]
        torch.testing.assert_close(model.predict(gathers), (maps[0] + maps[2]) / 2, rtol=1e-5, atol=0.01)
        assert "gone.ckpt is left out" in caplog.text
        other = fitted(checkpoints, gathers)
        other.members.files = [files[0], MemberFile(checkpoints[1], 1, digest="0" * 64), files[2]]
        torch.testing.assert_close(other.predict(gathers), (maps[0] + maps[2]) / 2, rtol=1e-5, atol=0.01)
        assert "not the file that the weights were fitted with" in caplog.text
        third = fitted(checkpoints, gathers)
        third.members.files = [MemberFile(tmp_path / "gone", 0), files[1], files[2]]
        expected = 0.25 * maps[2] + 0.75 * maps[1]
        torch.testing.assert_close(third.predict(gathers), expected, rtol=1e-5, atol=0.01)
    third.members.files = [MemberFile(tmp_path / "gone", 0)]
    with pytest.raises(UserError, match="no member of this ensemble can predict"):
        third.predict(gathers)


def test_members_whose_maps_are_not_finite_are_left_out(checkpoints, gathers, caplog):
    model = fitted(checkpoints, gathers)
    model.predict(gathers)
    with torch.no_grad():
        next(iter(model.members.loaded[1].parameters())).fill_(torch.nan)
    maps = [load_model(path).predict(gathers) for path in checkpoints]
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(model.predict(gathers), (maps[0] + maps[2]) / 2, rtol=1e-5, atol=0.01)
    assert "maps are not finite" in caplog.text


def test_memory_is_bounded_by_taking_members_in_turn(checkpoints, gathers):
    model = fitted(checkpoints, gathers)
    before = model.predict(gathers)
    assert len(model.members.loaded) == 3
    poor = fitted(checkpoints, gathers)
    poor.members.memory_mb = 1e-3
    torch.testing.assert_close(poor.predict(gathers), before)
    assert len(poor.members.loaded) == 1


def test_a_list_written_by_hand(checkpoints, gathers, tmp_path):
    maps = torch.stack([load_model(path).predict(gathers) for path in checkpoints])
    path = tmp_path / "ensemble.yaml"
    names = [str(one) for one in checkpoints]
    path.write_text(yaml.safe_dump({"members": names}))
    torch.testing.assert_close(load_model(path).predict(gathers), maps.mean(dim=0), rtol=1e-5, atol=0.01)
    path.write_text(yaml.safe_dump({"members": names[1:2]}))
    torch.testing.assert_close(load_model(path).predict(gathers), maps[1], rtol=1e-5, atol=0.01)
    path.write_text(yaml.safe_dump({"members": names, "weights": [2, 0, 6]}))
    model = load_model(path)
    answer = model.predict_answer(gathers)
    torch.testing.assert_close(answer.velocity, 0.25 * maps[0] + 0.75 * maps[2], rtol=1e-5, atol=0.01)
    assert (answer.scale, answer.family, model.families) == (None, None, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("members: []", "names no members"),
        ("members: [gone.ckpt]", "no member can be read: .*gone.ckpt is not a file"),
        ("members: [a.ckpt]\nweights: [1, 2]", "must be 1 numbers"),
        ("members: [a.ckpt]\nweights: [-1]", "must be 1 numbers"),
        ("members: [a.ckpt]\n_target_: os.system", "nothing else"),
        ("members: !!python/object/apply:os.getcwd []", "no YAML"),
        ("- a.ckpt", "must hold members"),
        ("members: [a.ckpt]\nmemory_mb: 0", "memory_mb"),
    ],
)
def test_a_wrong_list_gets_a_sentence(text, message, tmp_path):
    path = tmp_path / "ensemble.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_model(path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def test_a_foreign_file_runs_no_code_and_a_changed_one_is_refused(checkpoints, gathers, tmp_path):
    path = tmp_path / "ensemble.ckpt"
    torch.save({"ensemble": 1, "members": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(UserError, match="not a checkpoint that can be read"):
        load_model(path)
    assert not (tmp_path / "sprung").exists()
    write_ensemble(fitted(checkpoints, gathers), path)
    content = torch.load(path, weights_only=True)
    for changes, message in (
        ({"ensemble": 2}, "another version"),
        ({"members": content["members"][:1]}, "do not fit its weights"),
        ({"state": {}}, "no whole ensemble"),
        ({"survey": {"grid": "wide"}}, "no whole ensemble"),
        ({"blender": content["blender"] | {"method": "magic"}}, "method that there is not"),
    ):
        torch.save(content | changes, path)
        with pytest.raises(UserError, match=message):
            load_model(path)


def test_weights_per_cell_start_from_the_static_ones():
    samples = telling(6, told=False)
    blender = Blender(2, 1, SURVEY, samples.features.own_blocks, samples.features.shared_blocks).eval()
    blender.take_weights([0.3, 0.7])
    with torch.no_grad():
        static, cell = (blender(samples.inputs, method) for method in (STATIC, PIXEL))
    torch.testing.assert_close(cell.velocity, static.velocity)
    assert cell.weights.shape == samples.inputs.velocity.shape
