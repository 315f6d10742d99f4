"""The figures draw the arrays that they are given, in the places and units that they state."""

import numpy as np
import pytest
import torch

from fwi_lightning.figures.boundaries import CLASS_COLOURS, FALSE_ALARM, HIT, MISS, boundaries, classify
from fwi_lightning.figures.changes import Change, changes
from fwi_lightning.figures.curves import family_bars, training_curves
from fwi_lightning.figures.gathers import gathers
from fwi_lightning.figures.histograms import VELOCITY_EDGES, Spread, count_velocities, histograms
from fwi_lightning.figures.inversion import gallery, inversion
from fwi_lightning.figures.reconstructions import Guess, reconstructions
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=20, shots=3, samples=50)
RNG = np.random.default_rng(0)
RECORDS = RNG.normal(size=SURVEY.gathers_shape).astype(np.float32)
TRUTH = np.repeat(np.linspace(1600, 4400, 20, dtype=np.float32), 30).reshape(1, 20, 30)
PREDICTION = TRUTH + RNG.normal(0, 50, TRUTH.shape).astype(np.float32)


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def test_gathers_draws_each_shot_with_time_down_and_the_shot_marked():
    figure = gathers(RECORDS, SURVEY, clip=90)
    assert titles(figure) == ["shot 1 of 3", "shot 2 of 3", "shot 3 of 3"]
    axis, mesh = figure.axes[1], figure.axes[1].collections[0]
    np.testing.assert_array_equal(mesh.get_array().reshape(50, 30), RECORDS[1])
    limit = np.percentile(np.abs(RECORDS), 90)
    assert mesh.get_clim() == pytest.approx((-limit, limit))
    assert axis.get_ylim() == pytest.approx((0.05, 0.0))  # seconds, downwards
    # columns 0, 14 (14.5 rounded half to even) and 29 of 10 m cells, at their middles
    assert [axis.lines[0].get_xdata()[0] for axis in figure.axes] == pytest.approx([5, 145, 295])
    assert axis.get_xlabel() == "receiver position (m)"


def test_gathers_places_uneven_receivers_where_they_stand():
    survey = Survey.surface(30, depth=20, shots=1, samples=50)
    survey = Survey(**survey.to_dict() | {"receiver_columns": [0, 1, 29]})
    mesh = gathers(RECORDS[:1, :, :3], survey).axes[0].collections[0]
    edges = mesh.get_coordinates()[0, :, 0]
    assert edges[2] == pytest.approx(155)  # halfway between 15 m and 295 m


def test_gathers_of_another_survey_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 50, 30\).*got \(3, 50, 29\)"):
        gathers(RECORDS[..., :29], SURVEY)
    with pytest.raises(ValueError, match="shot must be 0 to 2, got 3"):
        gathers(RECORDS, SURVEY, shots=[3])


def test_a_silent_record_can_be_drawn():
    assert len(gathers(np.zeros_like(RECORDS), SURVEY).axes) == 3


def test_changes_show_each_sample_before_and_after_on_the_colours_of_before():
    sample = Change("a", TRUTH, RECORDS, TRUTH[:, ::-1], 2 * RECORDS)
    figure = changes([sample, sample], SURVEY)
    assert len(figure.axes) == 2 * 4 + 1
    before, after, gather, new_gather = figure.axes[4:8]
    np.testing.assert_array_equal(before.images[0].get_array(), TRUTH[0])
    np.testing.assert_array_equal(after.images[0].get_array(), TRUTH[0, ::-1])
    np.testing.assert_array_equal(gather.collections[0].get_array().reshape(50, 30), RECORDS[0])
    np.testing.assert_array_equal(new_gather.collections[0].get_array().reshape(50, 30), 2 * RECORDS[0])
    assert gather.collections[0].get_clim() == new_gather.collections[0].get_clim()
    assert max(figure.get_size_inches()) <= 12
    with pytest.raises(ValueError, match="at least one sample"):
        changes([], SURVEY)


def test_reconstructions_show_what_was_left_and_what_was_put_there_on_the_colours_of_the_record():
    hidden = RECORDS * (np.arange(30) < 10)
    figure = reconstructions([Guess("a", RECORDS, hidden, 0.5 * hidden)] * 2, SURVEY)
    assert titles(figure) == ["record", "with a part hidden", "filled in", "filled in - record"] + [""] * 4
    drawn = [axis.collections[0].get_array().reshape(50, 30) for axis in figure.axes[4:]]
    np.testing.assert_array_equal(drawn[0], RECORDS[0])
    assert (drawn[1][:, :10] == 0).all()
    np.testing.assert_array_equal(drawn[1][:, 10:], RECORDS[0, :, 10:])
    np.testing.assert_allclose(drawn[2][:, :10], 0.5 * RECORDS[0, :, :10])
    np.testing.assert_allclose(drawn[3], drawn[2] - RECORDS[0], atol=1e-6)
    assert len({axis.collections[0].get_clim() for axis in figure.axes}) == 1
    assert figure.axes[4].get_ylabel() == "a"
    with pytest.raises(ValueError, match="at least one sample"):
        reconstructions([], SURVEY)


def test_inversion_with_truth_shows_gathers_maps_error_and_profiles():
    figure = inversion(RECORDS, PREDICTION, TRUTH, SURVEY, title="a sample")
    error = PREDICTION - TRUTH
    assert titles(figure)[3:6] == [
        "true velocity",
        "predicted velocity",
        f"error: MAE {np.abs(error).mean():.1f} m/s",
    ]
    for axis, array in zip(figure.axes[3:6], (TRUTH, PREDICTION, error), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), array[0])
        assert axis.images[0].get_extent() == [0, 300, 200, 0]
    assert figure.axes[3].images[0].get_clim() == (1500, 4500)
    low, high = figure.axes[5].images[0].get_clim()
    assert low == -high
    true, predicted = figure.axes[7].patches  # the profile down the middle column, 14
    np.testing.assert_array_equal(true.get_data().values, TRUTH[0, :, 14])
    np.testing.assert_array_equal(predicted.get_data().values, PREDICTION[0, :, 14])
    assert figure.get_suptitle() == "a sample"


def test_inversion_without_truth_shows_the_prediction_alone():
    figure = inversion(RECORDS, PREDICTION, survey=SURVEY)
    assert titles(figure)[3] == "predicted velocity"
    assert len(figure.axes) == 3 + 1 + 3 + 1  # gathers, map, profiles, colour bar


def test_inversion_works_for_one_shot_and_a_long_line_in_kilometres():
    survey = Survey.surface(400, shots=1, samples=20)
    velocity = np.full((70, 400), 2000.0)
    figure = inversion(np.ones(survey.gathers_shape), velocity, velocity, survey)
    assert figure.axes[1].get_xlabel() == "position (km)"
    assert figure.axes[1].images[0].get_extent() == pytest.approx([0, 4.0, 0.7, 0])


def test_inversion_refuses_maps_that_differ_in_shape():
    with pytest.raises(ValueError, match="differ in shape"):
        inversion(RECORDS, PREDICTION, TRUTH[:, :10], SURVEY)
    with pytest.raises(ValueError, match=r"prediction must be .* got shape \(2, 20, 30\)"):
        inversion(RECORDS, np.concatenate([PREDICTION] * 2), survey=SURVEY)


def test_gallery_shows_truth_prediction_error_of_every_sample_on_common_scales():
    names = [f"family {number}" for number in range(7)]
    figure = gallery({name: (TRUTH, PREDICTION + 10 * i) for i, name in enumerate(names)}, columns=5)
    panels = figure.axes[:21]
    assert len(figure.axes) == 21 + 2
    assert [axis.get_title() for axis in panels[::3]] == names
    np.testing.assert_array_equal(panels[3 * 6 + 1].images[0].get_array(), (PREDICTION + 60)[0])
    assert len({axis.images[0].get_clim() for axis in panels[2::3]}) == 1
    mae = np.abs(PREDICTION - TRUTH).mean()
    assert panels[2].get_xlabel() == f"MAE {mae:.0f} m/s"
    left = [axis.get_position().x0 for axis in panels[::3]]
    assert left[5] == pytest.approx(left[0])  # the sixth begins the second band


def test_gallery_without_samples_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        gallery({})


def test_training_curves_take_the_rows_that_logged_each_number():
    rows = [
        {"step": 0, "epoch": 0, "train/loss": 0.5, "lr-AdamW/pg1": 1e-3},
        {"step": 1, "epoch": 0, "val/mae": 400.0},
        {"step": 2, "epoch": 1, "train/loss": 0.3, "lr-AdamW/pg1": 5e-4},
        {"step": 3, "epoch": 1, "val/mae": 250.0},
    ]
    loss, error, rate = training_curves(rows, baseline=420.0).axes
    assert loss.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 0.3]]
    baseline, curve, best = error.lines
    assert set(baseline.get_ydata()) == {420.0}
    assert baseline.get_linestyle() == "--"
    assert curve.get_xydata().tolist() == [[1, 400], [2, 250]]  # epochs done
    assert best.get_label() == "best: 250.0"
    assert rate.lines[0].get_xydata().tolist() == [[0, 1e-3], [2, 5e-4]]


def test_training_curves_of_a_run_without_a_log_say_so():
    figure = training_curves([])
    assert [axis.texts[0].get_text() for axis in figure.axes] == ["not logged"] * 3


def test_family_bars_stand_beside_the_baseline():
    axis = family_bars({"FlatVel_A": 30.0, "all": 50.0}, {"all": 200.0}).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["FlatVel_A", "all"]
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_array_equal(heights, [30, 50, np.nan, 200])


def test_classify_sorts_cells_by_hand_counted_example():
    true, predicted = np.zeros((2, 7, 9), bool)
    true[1, :4] = True  # four cells, the predicted ones lie one below three of them ...
    predicted[2, :2] = True  # ... so columns 0 to 2 of the truth are near, column 3 is not
    predicted[6, 8] = True  # far from everything
    classes, iou = classify(true, predicted)
    assert (classes == MISS).sum() == 1
    assert (classes == FALSE_ALARM).sum() == 1
    assert (classes == HIT).sum() == 3 + 2
    assert iou == pytest.approx(2.5 / (2.5 + 1 + 1))
    assert classify(np.zeros((3, 3), bool), np.zeros((3, 3), bool))[1] == 1.0


def test_classify_counts_the_same_boundary_iou_as_the_metric():
    metrics = pytest.importorskip("fwi_lightning.training.metrics")
    truth = torch.tensor(RNG.choice([2000.0, 2000.0, 2000.0, 2300.0], (1, 1, 20, 30)))
    guess = torch.roll(truth, 1, dims=-1)
    guess[..., :10, :] = 2000
    masks = [metrics.boundaries(velocity)[0, 0].numpy() for velocity in (truth, guess)]
    _, iou = classify(*masks, metrics.BOUNDARY_TOLERANCE)
    assert 0 < iou < 1
    assert iou == pytest.approx(metrics.score_samples(guess, truth)["boundary_iou"].item())


def test_boundaries_shows_classes_and_counts():
    mask = np.zeros(TRUTH.shape, bool)
    mask[0, 5] = True
    figure = boundaries(TRUTH, PREDICTION, mask, np.roll(mask, 3, axis=1), survey=SURVEY)
    assert titles(figure) == ["true boundary: 30 cells", "predicted boundary: 30 cells", "boundary IoU 0.00"]
    drawn = figure.axes[2].images[0]
    assert (drawn.get_array()[5] == MISS).all()
    assert (drawn.get_array()[8] == FALSE_ALARM).all()
    np.testing.assert_allclose(drawn.cmap(drawn.norm(HIT))[:3], (0x1A / 255, 0x9E / 255, 0x6F / 255))
    assert CLASS_COLOURS[HIT] == "#1a9e6f"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["hit (within 1 cell): 0", "missed: 30", "false alarm: 30"]


def test_count_velocities_keeps_every_cell():
    counts = count_velocities(np.array([[1500, 1549, 1400], [4500, 5000, 3001]]))
    assert counts.sum() == 6
    assert (counts[0], counts[30], counts[-1]) == (3, 1, 2)


def test_histograms_draw_the_counts():
    counts = np.arange(60)
    figure = histograms(Spread(counts, VELOCITY_EDGES, "velocity (m/s)", "cells"))
    np.testing.assert_array_equal(figure.axes[0].patches[0].get_data().values, counts)
    assert figure.axes[0].get_xlabel() == "velocity (m/s)"
