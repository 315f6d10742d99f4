"""Full waveform inversion on a small survey, and its prior."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.errors import UserError
from fwi_lightning.inversion import refine, refinement
from fwi_lightning.inversion.refinement import looks_flat
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=24, shots=3, samples=350, sponge=30)


@pytest.fixture(scope="module")
def ground():
    """Three layers with a step in the second interface, the record, and a map too smooth by far."""
    truth = np.full(SURVEY.grid, 2000.0, np.float32)
    truth[8:] = 2600
    truth[15:, :17] = 3300
    truth[18:, 17:] = 3300
    smooth = torch.from_numpy(gaussian_filter(truth, 4))
    truth = torch.from_numpy(truth)
    return truth, simulate(truth, SURVEY), smooth


def error(found, truth):
    return float((found - truth).abs().mean())


def test_a_smooth_map_becomes_the_layers_and_the_record_is_explained(ground):
    truth, record, smooth = ground
    seen = []
    found = refine(record, smooth, SURVEY, seconds=400, misfit=0.001, on_step=lambda *row: seen.append(row))
    assert found.velocity.shape == (1, *SURVEY.grid)
    assert found.misfit <= 0.001 < found.start_misfit
    assert error(found.velocity[0], truth) < 0.4 * error(smooth, truth)
    assert len(found.history) < len(seen)  # the windows are told of, too
    told = [misfit for _, misfit in seen]
    assert told == sorted(told, reverse=True)
    least = np.minimum.accumulate([found.start_misfit, *(misfit for _, misfit in found.history)])
    assert set(least[1:].tolist()) <= set(told)  # and so is each map
    assert found.misfit <= told[-1] == min(misfit for _, misfit in found.history)  # whole numbers are tried at the end
    assert [float(found.velocity[0, SURVEY.shot_row, column]) for column in SURVEY.shot_columns] == pytest.approx(
        [2000.0] * 3, abs=0.5
    )


def test_the_true_map_is_left_alone(ground):
    truth, record, _ = ground
    found = refine(record, truth, SURVEY)
    assert torch.equal(found.velocity[0], truth)
    assert found.history == []


def test_the_budget_is_kept_and_the_map_is_never_worse(ground):
    _, record, smooth = ground
    found = refine(record, smooth, SURVEY, seconds=0)
    assert found.misfit <= found.start_misfit
    assert len(found.history) <= 1


def test_bounds_are_kept(ground):
    _, record, smooth = ground
    found = refine(record, smooth, SURVEY, seconds=3, bounds=(1900, 3000))
    assert 1900 <= float(found.velocity.min()) <= float(found.velocity.max()) <= 3000


def test_a_last_row_of_zeros_does_not_count(ground):
    truth, record, _ = ground
    cut = record.clone()
    cut[:, -1] = 0
    assert refine(cut, truth, SURVEY).start_misfit < 1e-6


def test_flat_ground_is_seen_in_the_record_and_found_to_the_meter_per_second():
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[8:] = 2600
    truth[15:] = 3300
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), 3))
    wide = replace(SURVEY, sponge=120)  # a narrow one sends echoes back that are not those of flat ground
    record = simulate(truth, wide)
    assert looks_flat(record, wide)
    found = refine(record, smooth, wide, seconds=400, misfit=2e-5)
    assert found.velocity[0].std(dim=1).max() == 0
    assert error(found.velocity[0], truth) < 1 < 30 < error(smooth, truth)


def test_flat_ground_is_seen_although_the_sides_send_echoes_back(ground):
    truth = torch.full(SURVEY.grid, 2000.0)
    truth[8:] = 3300
    record = simulate(truth, SURVEY)
    first, second = record[0, :, :16], record[1, :, 14:]
    assert SURVEY.shot_columns[:2] == (0, 14)
    assert 1e-3 < float((first - second).norm() / first.norm()) < 0.1
    assert looks_flat(record, SURVEY)


def test_bent_ground_does_not_look_flat(ground):
    _, record, _ = ground
    assert not looks_flat(record, SURVEY)


def test_a_single_shot_does_not_tell_flat_ground():
    alone = replace(SURVEY, shot_columns=(14,))
    assert not looks_flat(simulate(torch.full(SURVEY.grid, 2000.0), alone), alone)


def test_a_texture_is_found_with_its_own_prior():
    # White noise through a Gaussian of 3.48 / sqrt(2) cells has a squared-exponential kernel of 3.48 cells.
    rough = gaussian_filter(np.random.default_rng(0).standard_normal((64, 64)), 3.48 / 2**0.5)[20:44, 20:50]
    truth = 2200 + 40 * torch.arange(24.0)[:, None] + torch.from_numpy(183 * rough / rough.std()).float()
    truth = truth.clamp(1500, 4500)
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), 4))
    found = refine(simulate(truth, SURVEY), smooth, SURVEY, seconds=400, misfit=0.001, prior="Style_A")
    assert found.misfit <= 0.001
    assert error(found.velocity[0], truth) < 0.5 * error(smooth, truth)


@pytest.mark.parametrize(("of_few_areas", "answer"), [(10, 10), (25, 5)])
def test_the_map_of_few_areas_is_the_answer_unless_another_leaves_less_than_a_third(
    ground, monkeypatch, of_few_areas, answer
):
    truth, record, smooth = ground

    def search(objective, *_):
        # The misfit of so small a change is in proportion to it.
        objective.value(truth.double() + 5)
        objective.simple = truth.double() + of_few_areas

    monkeypatch.setattr(refinement, "_refine", search)
    found = refine(record, smooth, SURVEY, prior="layers")
    assert torch.equal(found.velocity[0], truth + answer)


def test_an_unknown_prior_is_refused(ground):
    truth, record, _ = ground
    with pytest.raises(
        UserError, match="prior must be auto, layers, flat, curved, faulted, Style_A or Style_B, got 'stripes'"
    ):
        refine(record, truth, SURVEY, prior="stripes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda record, start: (record[:2], start),
            r"gathers have shape \(2, 350, 30\), the survey has \(3, 350, 30\)",
        ),
        (lambda record, start: (record, start[:20]), "the map to start from has shape"),
        (lambda record, start: (record * float("nan"), start), "must be finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(ground, change, message):
    _, record, smooth = ground
    with pytest.raises(UserError, match=message):
        refine(*change(record, smooth), SURVEY)


def test_bounds_the_wrong_way_round(ground):
    _, record, smooth = ground
    with pytest.raises(UserError, match="bounds must be the lowest and the highest velocity"):
        refine(record, smooth, SURVEY, bounds=(4500, 1500))
