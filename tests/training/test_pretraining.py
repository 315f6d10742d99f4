"""Pretraining: of every model, only the encoder learns, and it does."""

import lightning
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader

from fwi_lightning.commands import CONF
from fwi_lightning.config import plain
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import Survey
from fwi_lightning.training.masks import TASKS
from fwi_lightning.training.pretraining import PretrainingModule, pretrained_weights
from tests.models.catalogue import NAMES, SMALLER

SURVEY = Survey(samples=400)
SMALL = Survey.surface(width=24, depth=20, shots=3, samples=200)


def module(name="shallow_unet", *words: str, task: str = "masked_traces", survey: Survey = SURVEY) -> PretrainingModule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("pretrain", [f"model={name}", *SMALLER[name], *words])
    torch.manual_seed(0)
    optimizer = plain(config.optimizer)
    return PretrainingModule(plain(config.model), survey.to_dict(), task, 0.5, optimizer, None, FAMILIES)


def records(count: int, survey: Survey = SURVEY, seed: int = 0) -> torch.Tensor:
    """Straight arrivals of various slopes, as the first of a gather."""
    generator = np.random.default_rng(seed)
    time = np.arange(survey.samples)[:, None] * survey.time_step
    place = np.array(survey.receiver_columns) * survey.spacing
    gathers = np.zeros((count, *survey.gathers_shape))
    for sample in range(count):
        velocity = generator.uniform(1500, 4500)
        for shot, column in enumerate(survey.shot_columns):
            phase = (time - 0.07 - np.abs(place - column * survey.spacing) / velocity) * np.pi * survey.frequency
            gathers[sample, shot] = (1 - 2 * phase**2) * np.exp(-(phase**2))
    return torch.from_numpy(gathers).float()


def batch(count: int, survey: Survey = SURVEY) -> dict[str, torch.Tensor]:
    return {"gathers": records(count, survey), "index": torch.arange(count)}


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_with_its_encoder_and_that_does_not_touch_the_rest(name):
    learner = module(name, "model.family_head=true", "model.uncertainty_head=true")
    before = {key: value.clone() for key, value in learner.model.state_dict().items()}
    assert learner.model.training
    groups = learner.configure_optimizers().param_groups
    optimised = {id(parameter) for group in groups for parameter in group["params"]}
    for key, parameter in learner.model.named_parameters():
        if key not in learner.trained:
            assert not parameter.requires_grad
            assert id(parameter) not in optimised
            parameter.data.fill_(torch.nan)  # whatever touches it says so
    learner.fill(batch(2), 0).error.mean().backward()
    for key, parameter in learner.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert id(parameter) in optimised
    assert sum(bool(p.grad.any()) for p in learner.model.parameters() if p.requires_grad) > 0.9 * len(learner.trained)
    assert not any(key.startswith(("family_head", "net.head")) for key in learner.trained)
    assert any(key.startswith("net.") for key in learner.trained)
    kept = pretrained_weights(learner.model, learner.trained)
    assert learner.trained < set(kept) < set(before)
    assert "transform.scale" in kept
    assert all(value.isfinite().all() for value in kept.values())


def test_buffers_go_with_the_parameters_that_they_belong_to():
    learner = module("specproj_unet")
    kept = set(pretrained_weights(learner.model, learner.trained))
    groups = {key.rpartition(".")[0] for key in kept}
    statistics = {key for key in learner.model.state_dict() if key.endswith("running_mean")}
    assert {key for key in statistics if key.startswith(("projector.", "net.first.", "net.down."))} == statistics & kept
    assert "projector.norm" in groups
    assert not any(key.startswith(("net.up", "net.head")) for key in kept)


def test_frozen_atoms_stay_frozen_and_are_kept():
    learner = module("specproj_unet", "model.spectral.learned=false")
    assert not learner.model.projector.atoms.requires_grad
    assert learner.model.projector.transfer.requires_grad
    assert "projector.atoms" in pretrained_weights(learner.model, learner.trained)


@pytest.mark.parametrize("task", TASKS)
def test_a_guess_of_zeros_has_a_loss_of_one_and_the_truth_of_none(task, monkeypatch):
    learner = module(task=task, survey=SMALL)
    monkeypatch.setattr(learner.decoder, "forward", lambda features: torch.zeros(4, 3, 50, 24))
    np.testing.assert_allclose(learner.fill(batch(4, SMALL), 0).error, 1, rtol=1e-5)
    truth = learner.model.transform(records(4, SMALL))
    monkeypatch.setattr(learner.decoder, "forward", lambda features: truth)
    assert learner.fill(batch(4, SMALL), 0).error.max() < 1e-9
    monkeypatch.setattr(learner.decoder, "forward", lambda features: 0.5 * truth)
    np.testing.assert_allclose(learner.fill(batch(4, SMALL), 0).error, 0.25, rtol=1e-4)


def test_a_silent_sample_does_not_drown_the_others():
    learner = module(survey=SMALL)
    silent = {"gathers": torch.zeros(2, *SMALL.gathers_shape), "index": torch.arange(2)}
    filled = learner.fill(silent, 0)
    assert filled.guess.any()
    expected = filled.guess.square().mean(dim=(1, 2, 3)) / 1e-3
    torch.testing.assert_close(filled.error, expected)


@pytest.mark.parametrize("task", TASKS)
def test_the_encoder_does_not_see_what_is_hidden(task):
    """Other values in the hidden part change the loss, not the guess."""
    words = ("model.amplitudes=raw", "model.time_step=0.001")  # linear: the hidden part can be changed alone
    learner = module("specproj_unet", *words, task=task, survey=SMALL).eval()
    one = batch(2, SMALL)
    first = learner.fill(one)
    other = learner.fill(one | {"gathers": one["gathers"] + 3 * first.hidden})
    torch.testing.assert_close(other.hidden, 4 * first.hidden, atol=1e-4, rtol=1e-4)
    third = learner.fill(one | {"gathers": one["gathers"] + 3 * (first.records - first.hidden)})
    differences = [float((guess - first.guess).norm().detach()) for guess in (other.guess, third.guess)]
    assert differences[0] < 1e-3 * differences[1]


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_falls_on_samples_that_are_learned_by_heart(task):
    learner = module("specproj_unet", task=task, survey=SMALL)
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], 0.01)
    given = batch(2, SMALL)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = learner.fill(given, 0).error.mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.9
    assert losses[-1] < 0.4


def test_mixed_precision_gives_a_loss_in_single_precision():
    learner = module("specproj_unet", task="masked_spectra", survey=SMALL)
    exact = learner.fill(batch(4, SMALL), 0).error
    with torch.autocast("cpu", torch.bfloat16):
        half = learner.fill(batch(4, SMALL), 0).error
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0.02)


def test_the_validation_loss_does_not_depend_on_the_batch_size_or_on_chance():
    learner = module(survey=SMALL)
    torch.nn.init.normal_(learner.decoder.body[-1].weight, std=0.1)
    samples = [{"gathers": gathers, "index": index} for index, gathers in enumerate(records(5, SMALL))]
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    scores = []
    for seed, size in enumerate((1, 2, 5)):
        torch.manual_seed(seed)
        loader = DataLoader(samples, size)
        scores.append(trainer.validate(learner, loader, verbose=False)[0]["val/reconstruction"])
    assert scores[0] != pytest.approx(1, abs=1e-3)
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)
