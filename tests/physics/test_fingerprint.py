"""What records tell of their making: read where it is told, withdrawn where it is not, and said in sentences."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt, sosfiltfilt

from fwi_lightning.geology import draw
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import fingerprint, source_velocity
from fwi_lightning.survey import OPENFWI, Survey
from tests.physics.reference import simulate_plainly

SURVEY = Survey(samples=400)
MARMOUSI = Path(__file__).parent / "marmousi"


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    """Layers from slow to fast, a fault, a texture, and the slowest and the fastest ground."""
    drawn = [draw(family, 1, seed=5)[0, 0] for family in ("FlatVel_B", "CurveFault_B", "Style_A", "Style_B")]
    return torch.from_numpy(np.stack([*drawn, np.full((70, 70), 1500.0), np.full((70, 70), 4500.0)])).float()


@pytest.fixture(scope="module")
def gathers(maps) -> torch.Tensor:
    return simulate(maps, SURVEY)


def at_shots(maps: torch.Tensor) -> torch.Tensor:
    return maps[:, 1, [0, 17, 34, 52, 69]]


def filtered(gathers: torch.Tensor, method=sosfiltfilt, low: float = 3, high: float = 30) -> torch.Tensor:
    bands = butter(4, [low, high], "bandpass", fs=1000, output="sos")
    return torch.from_numpy(method(bands, gathers.numpy(), axis=2).copy()).float()


def shifted(gathers: torch.Tensor, samples: int) -> torch.Tensor:
    return torch.cat([torch.zeros_like(gathers[:, :, :samples]), gathers[:, :, :-samples]], dim=2)


def noisy(gathers: torch.Tensor, level: float) -> torch.Tensor:
    return gathers + level * torch.randn(gathers.shape, generator=torch.Generator().manual_seed(0))


def test_the_velocity_at_the_shots_is_exact(maps, gathers):
    assert (source_velocity(gathers, SURVEY) - at_shots(maps)).abs().max() < 1e-3


def test_the_plain_scheme_in_double_precision_tells_it_too(maps):
    survey = Survey(grid=(30, 40), shot_columns=(7, 31), receiver_columns=tuple(range(40)), samples=3, sponge=5)
    velocity = maps[3, :30, :40].numpy()
    plain = np.stack([simulate_plainly(velocity, survey, shot) for shot in (0, 1)])
    found = source_velocity(torch.from_numpy(plain)[None], survey)
    np.testing.assert_allclose(found[0], velocity[1, [7, 31]], atol=1e-3)


def test_what_another_group_recorded_tells_it_where_a_receiver_stands_at_the_shot():
    survey = Survey(
        grid=(70, 190), shot_columns=(0, 47, 94, 142, 189), receiver_columns=tuple(range(0, 190, 5)), samples=999
    )
    recorded = torch.from_numpy(np.load(MARMOUSI / "gathers.npy"))[None]
    velocity = source_velocity(recorded, survey)[0]
    assert velocity[0] == pytest.approx(np.load(MARMOUSI / "velocity.npy")[1, 0], abs=1e-3)
    assert velocity[1:].isnan().all()
    found = fingerprint(recorded, survey)
    assert found.differences() == []
    assert found.shot_columns[0, 0] == 0


def test_float16_keeps_it_to_a_metre_per_second(maps, gathers):
    for stored in (gathers.half(), gathers.half().float()):
        assert (source_velocity(stored, SURVEY) - at_shots(maps)).abs().max() < 1
    assert source_velocity((1.1 * gathers).half(), SURVEY).isnan().all()


WITHDRAWN = {
    "doubled": lambda x: 2 * x,
    "a thousandth louder": lambda x: 1.001 * x,
    "turned over": lambda x: -x,
    "filtered": filtered,
    "filtered forwards": lambda x: filtered(x, sosfilt),
    "a low pass forwards": lambda x: torch.from_numpy(sosfilt(butter(4, 60, fs=1000, output="sos"), x, axis=2)).float(),
    "3 samples late": lambda x: shifted(x, 3),
    "3 samples early": lambda x: torch.roll(x, -3, dims=2),
    "noisy": lambda x: noisy(x, 0.01),
    "compressed": lambda x: x.sign() * x.abs().log1p(),
    "rounded to bfloat16": lambda x: x.bfloat16(),
    "silent": torch.zeros_like,
    "not finite": lambda x: x * torch.nan,
}


@pytest.mark.parametrize("name", WITHDRAWN)
def test_it_is_withdrawn_from_records_that_were_changed(gathers, name):
    assert source_velocity(WITHDRAWN[name](gathers), SURVEY).isnan().all()


def test_a_gain_that_passes_unnoticed_moves_it_by_a_hundredth(maps, gathers):
    for gain in 1 + torch.logspace(-7, -3, 40):
        error = (source_velocity(gain * gathers, SURVEY) - at_shots(maps)).abs()
        assert error.nan_to_num(0.0).max() < 0.01


@pytest.mark.parametrize(("velocity", "told"), [(50.0, False), (150.0, True), (6000.0, True), (6500.0, False)])
def test_only_what_ground_and_scheme_can_have_is_believed(velocity, told):
    """Samples 0 and 1 written down from the scheme's two formulas."""
    alpha, wavelet = (velocity * 0.001 / 10) ** 2, OPENFWI.wavelet()
    start = np.zeros((1, 5, 1000, 70))
    start[0, 2, 0, 34] = alpha * 100 * wavelet[0]
    start[0, 2, 1, 34] = (2 - 5 * alpha) * start[0, 2, 0, 34] + alpha * 100 * wavelet[1]
    found = source_velocity(torch.from_numpy(start).float(), OPENFWI)[0]
    assert found[[0, 1, 3, 4]].isnan().all()
    assert found[2].item() == pytest.approx(velocity, abs=1e-3) if told else found[2].isnan()


def test_one_shot_at_another_column_leaves_the_others(maps, gathers):
    """A flip in space moves the shot of column 34 to 35."""
    found = source_velocity(gathers.flip(1).flip(3), SURVEY)
    assert found[:, 2].isnan().all()
    np.testing.assert_allclose(found[:, [0, 1, 3, 4]], at_shots(maps).flip(1)[:, [0, 1, 3, 4]], atol=1e-3)


@pytest.mark.parametrize("survey", [Survey(samples=1), Survey(receiver_row=2, samples=5)])
def test_surveys_that_cannot_tell_it(maps, survey):
    gathers = simulate(maps[:1], survey)
    assert source_velocity(gathers, survey).isnan().all()
    assert fingerprint(gathers, survey).differences() == []


def test_simulated_records_of_any_kind_do_not_differ_from_their_survey(maps, gathers):
    last = gathers.clone()
    last[:, :, -1] = 0
    for records in (gathers, gathers.half(), last):
        assert fingerprint(records, SURVEY).differences() == []
    assert not fingerprint(gathers, SURVEY).last_sample_zero.any()
    assert fingerprint(last, SURVEY).last_sample_zero.all()


OTHER_UNITS = Survey(
    grid=(30, 90), shot_columns=(45, 88), receiver_columns=tuple(range(90)), samples=700, sponge=40, spacing=4.0,
    time_step=0.0005, frequency=40.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "survey", [OTHER_UNITS, Survey.surface(100, shots=3, samples=300), OPENFWI], ids=["other units", "wide", "openfwi"]
)
def test_other_surveys_have_fingerprints_of_their_own(survey):
    velocity = torch.linspace(1600, 4000, survey.grid[0])[:, None].expand(survey.grid)
    noise = noisy(simulate(velocity[None], survey), 0.05)
    for records, exact in ((simulate(velocity[None], survey), True), (noise, False)):
        found = fingerprint(records, survey)
        assert tuple(found.shot_columns[0].tolist()) == survey.shot_columns
        assert found.onset.item() == 0
        assert bool(found.exact) == exact


SENTENCES = {
    "doubled": (lambda x: 2 * x, ["the record was multiplied by about 2, or its cells are not of 10 m"]),
    "louder": (lambda x: 1.001 * x, ["the record was multiplied by about 1.001, or its cells are not of 10 m"]),
    "late": (
        lambda x: shifted(x, 3),
        ["the wavelet begins at sample 3, the survey's at 0: the record was shifted or filtered"],
    ),
    "cut": (
        lambda x: torch.roll(x, -30, dims=2),
        [r"the wavelet begins about (2[6-9]|3[0-3]) samples before the record: it was cut or filtered"],
    ),
    "filtered": (filtered, ["the first samples are not those of a simulated record"]),
    "noisy": (lambda x: noisy(x, 1.0), ["the first samples are not those of a simulated record"]),
    "flipped": (
        lambda x: x.flip(1).flip(3),
        [r"the shots stand at columns 0, 17, 35, 52, 69, the survey's at 0, 17, 34, 52, 69"],
    ),
    "flipped and noisy": (
        lambda x: noisy(x.flip(1).flip(3), 0.3),
        ["the shots stand at columns 0, 17, 35, 52, 69", "the first samples are not"],
    ),
    "silent": (torch.zeros_like, ["the record is silent"]),
    "half of it doubled": (
        lambda x: torch.cat([x[:4], 2 * x[4:]]),
        [r"multiplied by about 2, .* \(in 2 of the 6 samples looked at\)"],
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_differs_is_said_in_sentences(gathers, name):
    change, expected = SENTENCES[name]
    said = fingerprint(change(gathers), SURVEY).differences()
    assert len(said) == len(expected), said
    for sentence, pattern in zip(said, expected, strict=True):
        assert re.search(pattern, sentence), sentence


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"shot_columns": [2, 19, 36, 50, 60]}, "the shots stand at columns 2, 19, 36, 50, 60, the survey's at 0, 17"),
        ({"frequency": 8.0}, r"the spectrum at the shots peaks at [67]\.\d Hz, the survey's wavelet at 15 Hz"),
        ({"time_step": 0.0005}, "the spectrum at the shots peaks at"),
        ({"spacing": 8.0}, "multiplied by about 0.64, or its cells are not of 10 m"),
    ],
)
def test_another_survey_is_told_by_what_it_records(maps, changes, pattern):
    said = fingerprint(simulate(maps, Survey(samples=400, **changes)), SURVEY).differences()
    assert len(said) == 1, said
    assert re.search(pattern, said[0])


def test_two_receivers_in_one_column_are_one_place():
    survey = Survey(samples=60, shot_columns=(3, 40), receiver_columns=(40, 3, 3, 0))
    velocity = torch.linspace(1600, 2400, 70).expand(1, 70, 70).contiguous()
    record = simulate(velocity, survey)
    assert not fingerprint(record, survey).differences()
    torch.testing.assert_close(source_velocity(record, survey), velocity[:, 1, [3, 40]], rtol=1e-5, atol=0)
