"""The drawn maps against OPENFWI's description of the recorded ones."""

import functools

import numpy as np
import pytest

from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw, statistics

LAYERED = FAMILIES[:8]
MANY = 200


@functools.cache
def maps(family):
    return draw(family, MANY, seed=2)


@functools.cache
def described(family):
    return statistics(maps(family))


def runs(column):
    """Lengths of the runs of equal values in a column."""
    ends = np.flatnonzero(np.diff(column)) + 1
    return np.diff(np.concatenate([[0], ends, [column.size]]))


def test_ten_families_under_their_openfwi_names():
    assert len(set(FAMILIES)) == 10
    assert {"FlatVel_A", "CurveVel_B", "FlatFault_B", "CurveFault_A", "Style_B"} < set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_shape_type_and_bounds(self, family):
        drawn = maps(family)
        assert drawn.shape == (MANY, 1, 70, 70)
        assert drawn.dtype == np.float32
        assert drawn.min() >= 1500
        assert drawn.max() <= 4500

    def test_same_seed_same_maps(self, family):
        np.testing.assert_array_equal(maps(family)[:4], draw(family, 4, seed=2))

    def test_map_depends_on_its_index_not_on_its_neighbours(self, family):
        np.testing.assert_array_equal(maps(family)[5], draw(family, 1, seed=2, start=5)[0])

    def test_indices_and_seeds_give_different_maps(self, family):
        drawn = maps(family)
        assert len({velocity.tobytes() for velocity in drawn}) == MANY
        assert not np.array_equal(drawn[0], draw(family, 1, seed=3)[0])

    @pytest.mark.parametrize("shape", [(70, 190), (100, 40), (30, 30), (300, 30)])
    def test_other_shapes(self, family, shape):
        drawn = draw(family, 6, seed=0, shape=shape)
        assert drawn.shape == (6, 1, *shape)
        assert drawn.min() >= 1500
        assert drawn.max() <= 4500
        assert all(np.unique(velocity).size > 1 for velocity in drawn)


def test_first_maps_do_not_change_between_versions():
    """Data sets are remembered by their seed: whoever changes what a seed gives should know it."""
    sums = {family: int(draw(family, 1, seed=0).sum(dtype=np.float64)) for family in ("FlatVel_A", "FlatFault_A")}
    assert sums == {"FlatVel_A": 11028430, "FlatFault_A": 12278393}


def test_families_draw_different_chances():
    assert not np.array_equal(draw("FlatVel_A", 1, 0), np.sort(draw("FlatVel_B", 1, 0), axis=2))


@pytest.mark.parametrize("family", LAYERED)
def test_layers_are_whole_numbers_with_sharp_steps(family):
    assert (described(family)["whole_share"] == 1).all()
    # a blur, however slight, would leave values between those of the layers
    assert described(family)["distinct_values"].max() <= 12


@pytest.mark.parametrize("family", ["FlatVel_A", "FlatVel_B"])
class TestFlatVel:
    def test_columns_are_alike(self, family):
        assert (maps(family) == maps(family)[..., :1]).all()

    def test_layer_counts(self, family):
        many = draw(family, 1500, seed=4)[:, 0, :, 0]
        counts = np.bincount([runs(column).size for column in many], minlength=9)
        assert counts[:3].sum() == 0
        assert counts.size == 9
        rare, common = counts[[3, 8]].mean(), counts[4:8].mean()
        assert 0.4 < rare / common < 0.6
        assert counts[4:8].min() > 0.8 * counts[4:8].max()

    def test_thickness(self, family):
        thickness = np.concatenate([runs(velocity[0, :, 0]) for velocity in maps(family)])
        assert thickness.min() == 3
        assert 30 <= thickness.max() <= 35


def test_vel_a_grows_with_depth_in_every_column_and_b_does_not():
    for family in ("FlatVel", "CurveVel"):
        assert (described(f"{family}_A")["monotone_columns"] == 1).all()
        assert described(f"{family}_B")["monotone_columns"].mean() < 0.1
        assert 0.4 < described(f"{family}_B")["drop_share"].mean() < 0.6


@pytest.mark.parametrize("family", ["CurveVel_A", "CurveVel_B"])
def test_one_curve_bends_all_interfaces_of_curve_vel(family):
    """Thickness of a layer that touches neither edge is the same in every column, the interfaces' depth is not."""
    reach = []
    for velocity in maps(family)[:, 0]:
        for value in np.unique(velocity):
            inside = velocity == value
            if inside[0].any() or inside[-1].any():
                continue
            assert np.ptp(inside.sum(axis=0)) == 0
            reach.append(np.ptp(inside.argmax(axis=0)))
    assert min(reach) >= 1
    assert 12 <= max(reach) <= 24  # a curve of plus or minus about 10 cells


@pytest.mark.parametrize("family", ["FlatFault_A", "CurveFault_A"])
def test_fault_a_has_two_or_three_values(family):
    counts = described(family)["distinct_values"]
    assert set(counts) == {2.0, 3.0}
    assert (described(family)["edge_values_shared"] == counts).all()


def test_throw_of_flat_fault_a():
    """Measured on the maps: how much lower the first interface is at one edge than at the other."""
    drawn = maps("FlatFault_A")[:, 0]
    interfaces = [(velocity != velocity[0]).argmax(axis=0) for velocity in drawn]
    throw = np.array([abs(int(rows[0]) - int(rows[-1])) for rows in interfaces])
    assert throw.min() == 5
    assert throw.max() == 15
    np.testing.assert_allclose(described("FlatFault_A")["throw"], throw, atol=1.5)


def test_throw_of_curve_fault_a():
    throw = described("CurveFault_A")["throw"]
    assert np.mean((throw >= 4) & (throw <= 16)) > 0.9
    assert np.median(described("CurveVel_A")["throw"]) < 2  # where there is no fault there is no throw


@pytest.mark.parametrize("family", ["FlatFault_B", "CurveFault_B"])
class TestFaultB:
    def test_two_stacks_of_six_values(self, family):
        assert (described(family)["distinct_values"] == 12).all()
        assert (described(family)["edge_values_shared"] == 0).all()

    def test_monotone_columns(self, family):
        share = described(family)["monotone_columns"]
        # recorded: 7 to 63 % in ten maps
        assert 0.02 < np.percentile(share, 5) < 0.15
        assert 0.5 < np.percentile(share, 95) < 0.72

    def test_edge_columns_grow_with_depth_where_no_sliver_cuts_them(self, family):
        edges = maps(family)[:, 0][:, :, [0, -1]]
        assert np.mean((np.diff(edges, axis=1) >= 0).all(axis=1)) > 0.6


def test_surface_values_of_curve_fault_b():
    touching = described("CurveFault_B")["surface_values"]
    # recorded: 3 to 7 in ten maps
    assert np.mean((touching >= 3) & (touching <= 7)) > 0.9
    assert touching.mean() > described("FlatFault_B")["surface_values"].mean()


def test_curve_fault_b_has_steep_folds():
    assert (
        described("CurveFault_B")["horizontal_gradient"].mean()
        > 1.2 * described("FlatFault_B")["horizontal_gradient"].mean()
    )


@pytest.mark.parametrize("family", ["Style_A", "Style_B"])
class TestStyle:
    def test_background_grows_with_depth(self, family):
        profile = maps(family).mean(axis=(0, 1, 3))
        assert 1700 < profile[0] < 2000
        assert 3700 < profile[-1] < 4000
        assert described(family)["vertical_slope"].mean() == pytest.approx(31.4, abs=2)

    def test_strength_of_the_texture(self, family):
        # recorded: 183 and 158 m/s by the Gaussian process fits
        assert 140 < described(family)["residual_std"].mean() < 200

    def test_no_flat_patches(self, family):
        assert described(family)["distinct_values"].min() > 4500
        assert np.isnan(described(family)["layers_per_column"]).all()


def test_style_a_is_smooth_and_style_b_has_edges():
    smooth, sharp = described("Style_A"), described("Style_B")
    assert 3 < smooth["horizontal_length"].mean() < 5
    assert 1 < sharp["vertical_length"].mean() < 2.5
    assert sharp["horizontal_gradient"].mean() > 2 * smooth["horizontal_gradient"].mean()
    # edges: far more steep places than a Gaussian field of the same gradient has
    across = np.diff(maps("Style_B")[:, 0], axis=2)
    excess = np.mean(across**4) / np.mean(across**2) ** 2
    assert excess > 4


def test_mistakes_are_told():
    with pytest.raises(UserError, match="Known families: FlatVel_A"):
        draw("FlatVel_C", 1, 0)
    with pytest.raises(UserError, match="count must be a whole number of at least 1, got 0"):
        draw("FlatVel_A", 0, 0)
    with pytest.raises(UserError, match="seed must be"):
        draw("FlatVel_A", 1, -1)
    with pytest.raises(UserError, match="start must be"):
        draw("FlatVel_A", 1, 0, start=1.5)
    with pytest.raises(UserError, match=r"shape must be .* got \(70, 20\)"):
        draw("FlatVel_A", 1, 0, shape=(70, 20))
