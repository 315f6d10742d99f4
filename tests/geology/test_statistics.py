"""Statistics of maps made by hand, whose answers are known."""

import numpy as np
import pytest

from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, STATISTICS, draw, statistics, summarise


def of(velocity):
    return {name: values[0] for name, values in statistics(np.asarray(velocity, np.float32)[None, None]).items()}


def layered(interfaces, velocities, depth=70):
    """(depth, width): column x shows `velocities`, changing at rows interfaces[:, x]."""
    rows = np.arange(depth)[:, None]
    return np.asarray(velocities, float)[sum(rows >= row for row in np.atleast_2d(interfaces))]


def test_constant_map():
    found = of(np.full((70, 70), 2000.0))
    assert found["min"] == found["max"] == found["mean"] == 2000
    assert found["distinct_values"] == found["surface_values"] == found["layers_per_column"] == 1
    assert found["layer_thickness"] == 70
    assert found["monotone_columns"] == found["whole_share"] == 1
    assert found["vertical_gradient"] == found["horizontal_gradient"] == 0
    assert found["residual_std"] == pytest.approx(0, abs=1e-6)
    for nothing in ("jump", "drop_share", "throw", "vertical_length", "horizontal_length"):
        assert np.isnan(found[nothing])


def test_two_layers():
    found = of(layered(np.full(70, 30), [1800, 3000]))
    assert found["distinct_values"] == found["layers_per_column"] == found["edge_values_shared"] == 2
    assert found["layer_thickness"] == 35
    assert found["jump"] == 1200
    assert found["drop_share"] == found["lateral_breaks"] == found["horizontal_gradient"] == 0
    assert found["vertical_gradient"] == pytest.approx(1200 / np.sqrt(69))
    assert found["throw"] == pytest.approx(0, abs=1e-6)


def test_staircase_down():
    found = of(np.repeat(np.linspace(4500, 1500, 7), 10)[:, None].repeat(70, axis=1))
    assert found["layers_per_column"] == 7
    assert found["thin_layers"] == found["thick_layers"] == found["layer_thickness"] == 10
    assert found["jump"] == 500
    assert found["drop_share"] == 1
    assert found["monotone_columns"] == 0
    assert found["vertical_slope"] < 0


def test_ramp_is_all_trend():
    found = of((1500 + 40.5 * np.arange(70))[:, None].repeat(70, axis=1))
    assert found["vertical_slope"] == pytest.approx(40.5)
    assert found["residual_std"] == pytest.approx(0, abs=1e-6)
    assert found["whole_share"] == 0.5
    assert np.isnan(found["layers_per_column"])  # 70 values are no layers


@pytest.mark.parametrize("throw", [5, -9, 15])
@pytest.mark.parametrize("bend", [0.0, 6.0])
@pytest.mark.parametrize("spread", [1, 8])
def test_throw_of_a_known_fault(throw, bend, spread):
    columns = np.arange(70)
    curve = bend * (0.7 * np.sin(2 * np.pi * 2 * columns / 70 + 1) + 0.3 * np.sin(2 * np.pi * 5 * columns / 70))
    offset = throw * np.clip((columns - 36) / spread, 0, 1)
    first = np.rint(30 + curve + offset)
    found = of(layered(np.stack([first, first + 8]), [1700, 2500, 4000]))
    assert found["throw"] == pytest.approx(abs(throw), abs=1)


def test_half_and_half():
    velocity = np.full((70, 70), 2000.0)
    velocity[:, 35:] = 3000
    velocity[40:, 35:] = 2500
    found = of(velocity)
    assert found["surface_values"] == 2
    assert found["edge_values_shared"] == 0
    assert found["monotone_columns"] == 0.5
    assert found["lateral_breaks"] == pytest.approx(1 / 69)
    assert np.isnan(found["throw"])  # the two halves have nothing in common that could be offset


def test_correlation_length_of_a_squared_exponential():
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).normal(size=(20, 120, 120))
    fields = np.stack([gaussian_filter(field, 2.5)[20:100, 20:100] for field in noise])
    found = statistics(2800 + 180 * fields / fields.std())
    assert found["horizontal_length"].mean() == pytest.approx(2.5 * np.sqrt(2), rel=0.08)
    assert found["vertical_length"].mean() == pytest.approx(2.5 * np.sqrt(2), rel=0.08)


def test_maps_with_holes_give_nan_and_leave_the_others_alone():
    maps = draw("CurveFault_B", 3, 0)
    expected = statistics(maps)
    maps[1, 0, 3, 4] = np.nan
    found = statistics(maps)
    for name in STATISTICS:
        assert np.isnan(found[name][1])
        np.testing.assert_array_equal(found[name][[0, 2]], expected[name][[0, 2]])


def test_channel_axis_may_be_missing():
    maps = draw("CurveVel_B", 3, 0)
    np.testing.assert_array_equal(statistics(maps)["jump"], statistics(maps[:, 0])["jump"])


@pytest.mark.parametrize("shape", [(70, 70), (2, 3, 70, 70), (3, 1, 70)])
def test_wrong_shapes_are_told(shape):
    with pytest.raises(UserError, match=r"velocity must be \(N, 1, depth, width\)"):
        statistics(np.zeros(shape))


def test_small_and_wide_maps_do_not_crash():
    rng = np.random.default_rng(0)
    for shape in [(2, 2), (5, 3), (3, 200)]:
        assert set(statistics(rng.integers(1500, 4500, (2, *shape)))) == set(STATISTICS)


def test_summary_has_a_row_per_family():
    rows = summarise({family: draw(family, 8, 0) for family in FAMILIES})
    assert [row["family"] for row in rows] == list(FAMILIES)
    for row in rows:
        assert row["maps"] == 8
        assert set(row) == {"family", "maps", *STATISTICS, *(f"{name}_std" for name in STATISTICS)}
    assert rows[0]["distinct_values"] == statistics(draw("FlatVel_A", 8, 0))["distinct_values"].mean()
    assert np.isnan(rows[-1]["throw"])
