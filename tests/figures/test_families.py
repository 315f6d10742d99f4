"""Figures of a data set: a panel for each family, whatever is missing."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fwi_lightning.figures.families import Profile, Shown, depth_profiles, samples, spectra
from fwi_lightning.figures.survey import acquisition
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=20, shots=3, samples=50)
RNG = np.random.default_rng(0)


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert plt.get_fignums() == []
    return figure


def shown(name, labelled=True):
    return Shown(name, RNG.normal(size=SURVEY.gathers_shape), np.full((20, 30), 2000.0) if labelled else None)


def test_profiles_of_seven_families_share_their_scales():
    profile = Profile(np.linspace(1500, 5000, 20), np.full(20, 200.0), np.full(20, 0.2))
    figure = drawn(depth_profiles({f"family {number}": profile for number in range(7)}, SURVEY))
    titled = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in titled] == [f"family {number}" for number in range(7)]
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in titled}) == 1
    assert titled[0].get_xlim()[1] > 5200
    top, bottom = titled[0].get_ylim()
    assert top > bottom  # depth points down


def test_spectra_have_the_wavelet_beside_them():
    frequency = np.fft.rfftfreq(SURVEY.samples, SURVEY.time_step)
    figure = drawn(spectra(frequency, {"a": np.ones(26), "b": np.ones(26)}, SURVEY))
    assert [line.get_label() for line in figure.axes[0].lines] == ["wavelet", "a", "b"]


@pytest.mark.parametrize(("labelled", "axes"), [([True] * 6, 13), ([True, False], 5), ([False, False], 2)])
def test_samples_with_and_without_maps(labelled, axes):
    figure = drawn(samples([shown(f"{number}", there) for number, there in enumerate(labelled)], SURVEY))
    assert len(figure.axes) == axes


def test_nothing_to_show():
    for nothing in (lambda: depth_profiles({}), lambda: samples([]), lambda: spectra(np.ones(1), {})):
        with pytest.raises(ValueError, match="at least one family"):
            nothing()


@pytest.mark.parametrize("survey", [SURVEY, Survey.surface(400, shots=20), Survey(shot_columns=(3,))])
def test_the_acquisition(survey):
    figure = drawn(acquisition(survey))
    ground = figure.axes[0]
    assert ground.get_title().startswith(f"grid of {survey.grid[0]} x {survey.grid[1]} cells")
    receivers, shots = ground.lines
    assert (len(receivers.get_xdata()), len(shots.get_xdata())) == (survey.receivers, survey.shots)
