"""The random field of a calibration: fitted to predictions, on for the families that it helps."""

import pytest
import torch

from fwi_lightning.inversion.calibration import Calibration
from fwi_lightning.inversion.crf import UNKNOWN, RandomField, apply_crf, fit_crf
from fwi_lightning.inversion.state import State
from fwi_lightning.models import Answer
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey


def drawn(samples: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Noisy predictions of layers, and predictions of a texture that are right: the field can only spoil those."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.full((samples, 1, 16, 16), 2000.0)
    layers[:, :, 8:] = 3000.0
    texture = 2500 + 30 * torch.randn(samples, 1, 16, 16, generator=generator)
    noise = 50 * torch.randn(layers.shape, generator=generator)
    truth = torch.stack([layers, layers, texture, texture], dim=1).flatten(0, 1)
    prediction = torch.stack([layers + noise, layers - noise, texture, texture], dim=1).flatten(0, 1)
    return prediction, truth, ["Layers", "Layers", "Texture", "Texture"] * samples


@pytest.fixture(scope="module")
def fitted() -> dict:
    return fit_crf(*drawn(12))


def test_it_is_on_for_the_family_that_it_helps(fitted):
    assert fitted["families"] == ["Layers", UNKNOWN]
    assert fitted["changes"]["Layers"] < -10
    assert fitted["changes"]["Texture"] > 0
    prediction, truth, families = drawn(3)
    velocity, chosen = apply_crf(fitted, prediction, families)
    assert chosen == [name == "Layers" for name in families]
    change = (velocity - truth).abs().mean(dim=(1, 2, 3)) - (prediction - truth).abs().mean(dim=(1, 2, 3))
    assert (change[torch.tensor(chosen)] < 0).all()
    assert (change[~torch.tensor(chosen)] == 0).all()
    assert apply_crf(fitted, prediction, families, only=["Texture"])[1] == [name == "Texture" for name in families]


def test_a_field_that_helps_nobody_is_off():
    _, truth, families = drawn(6)
    found = fit_crf(truth, truth, families)
    assert found["families"] == []


SURVEY = Survey.surface(16, depth=16, shots=2, samples=300, spacing=20.0)


def test_of_unknown_family_the_record_decides(fitted):
    prediction, truth, _ = drawn(1)
    truth, start = truth[[0, 2]], prediction[[0, 2]]
    gathers = simulate(truth[:, 0], SURVEY)
    state = State(gathers, start, SURVEY, answer=Answer(start), calibration=Calibration({}, fitted))
    before = state.misfit().clone()
    RandomField().run(state, 0)
    assert state.columns["crf"] == [True, False]
    assert state.misfit()[0] < before[0]
    assert torch.equal(state.velocity[1], start[1])


def test_named_families_are_taken_at_their_word_and_without_calibration_nothing_happens(fitted):
    prediction, truth, _ = drawn(1)
    start = prediction[[0, 2]]
    state = State(simulate(truth[[0, 2], 0], SURVEY), start, SURVEY, named=("Texture", "Layers"))
    RandomField().run(state, 0)
    assert state.columns["crf"] == [False, False]
    state.calibration = Calibration({}, fitted)
    RandomField().run(state, 0)
    assert state.columns["crf"] == [False, True]
    assert torch.equal(state.velocity[0], start[0])
    assert not torch.equal(state.velocity[1], start[1])
