import numpy as np
import pytest

from fwi_lightning.errors import UserError
from fwi_lightning.survey import OPENFWI, Survey


def test_openfwi_is_the_published_acquisition():
    assert OPENFWI.shot_columns == (0, 17, 34, 52, 69)
    assert OPENFWI.gathers_shape == (5, 1000, 70)
    wavelet = OPENFWI.wavelet()
    assert wavelet[0] == pytest.approx(-1.644413e-4, rel=1e-6)
    assert wavelet.argmax() == 73
    assert wavelet[73] == 1.0
    assert np.flatnonzero(wavelet).max() == 146


def test_surface_spreads_the_shots_as_the_recorded_marmousi_line_does():
    survey = Survey.surface(190)
    assert survey.shot_columns == (0, 47, 94, 142, 189)
    assert survey.receivers == 190
    assert Survey.surface(70) == OPENFWI


def test_survives_its_dict():
    survey = Survey.surface(80, shots=3, samples=500)
    assert Survey(**survey.to_dict()) == survey


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": (70,)}, "grid must be"),
        ({"grid": (2, 70)}, "at least 3 cells"),
        ({"spacing": 0.0}, "spacing must be a positive number, got 0.0"),
        ({"time_step": float("nan")}, "time_step must be a positive number"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"shot_columns": ()}, "at least one shot"),
        ({"shot_columns": (70,)}, "shot_columns must be 0 to 69 on a grid of width 70, got 70"),
        ({"receiver_columns": (-1,)}, "receiver_columns must be 0 to 69"),
        ({"receiver_row": 70}, "receiver_row must be 0 to 69"),
    ],
)
def test_refuses_what_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        Survey(**changes)
