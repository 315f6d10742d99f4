"""The contact sheet of the families."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fwi_lightning.figures.maps import contact_sheet
from fwi_lightning.figures.style import VELOCITY_RANGE
from fwi_lightning.geology import FAMILIES, draw


def test_a_row_per_family_and_one_colour_bar():
    figure = contact_sheet({family: draw(family, 3, 0) for family in FAMILIES}, columns=3)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert plt.get_fignums() == []  # no global state
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 30
    assert len(figure.axes) == 31
    assert [axis.get_ylabel() for axis in shown[::3]] == list(FAMILIES)
    assert {axis.images[0].get_clim() for axis in shown} == {VELOCITY_RANGE}


def test_too_few_maps_leave_gaps_and_the_channel_axis_may_be_missing():
    figure = contact_sheet({"FlatVel_A": draw("FlatVel_A", 2, 0)[:, 0]}, columns=4)
    assert sum(bool(axis.images) for axis in figure.axes) == 2


@pytest.mark.parametrize("maps", [{}, {"a": np.zeros((70, 70))}, {"a": np.zeros((0, 1, 70, 70))}])
def test_nothing_to_show(maps):
    with pytest.raises(ValueError, match=r"contact_sheet|expected"):
        contact_sheet(maps)
