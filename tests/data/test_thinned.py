"""Surveys written with fewer time samples and one more shot train as whole ones do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_lightning.commands.recording import check_thinning
from fwi_lightning.data import GathersDataModule, find_parts, write_survey
from fwi_lightning.data.augment import Flip
from fwi_lightning.data.training import Recorded, TrainingSamples
from fwi_lightning.errors import UserError
from fwi_lightning.models import InputTransform, ResidualUNet
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.survey import Survey
from fwi_lightning.training.losses import WaveformMisfit

SURVEY = Survey.surface(32, depth=30, shots=5, samples=200, sponge=30)  # shots at 0, 8, 16, 23, 31
CLOSED = replace(SURVEY, shot_columns=(0, 8, 15, 16, 23, 31))  # its own mirror image
SETTINGS = {"families": ["CurveFault_B", "Style_A"], "samples_per_family": 6, "samples_per_file": 2, "seed": 3}
FLIP = {"flip": {"_target_": "fwi_lightning.data.augment.Flip", "probability": 1.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("thinned")
    quiet = {"on_progress": lambda *_: None}
    return write_survey(root / "s", survey=CLOSED, time_step=0.004, dtype="float16", **SETTINGS, **quiet)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_survey(tmp_path_factory.mktemp("whole") / "s", survey=CLOSED, on_progress=lambda *_: None, **SETTINGS)


def module_of(root, **settings):
    module = GathersDataModule(root, survey=SURVEY, folds=3, batch_size=4, **settings)
    module.prepare_data()
    module.setup()
    return module


def test_every_fourth_sample_is_written_in_half_precision(folder, whole):
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.npy"))
    assert files == sorted(path.relative_to(whole) for path in whole.rglob("*.npy"))
    for file in files:
        thin, full = np.load(folder / file), np.load(whole / file)
        if full.ndim == 4 and full.shape[1] == 6:
            assert thin.dtype == np.float16
            assert np.array_equal(thin, full[:, :, ::4].astype(np.float16))
            assert np.abs(thin[:, :, 0]).max() > 0  # sample 0, which tells the velocity at the shots
        else:
            assert np.array_equal(thin, full)


def test_the_survey_that_is_trained_on_gets_its_own_shots(folder, whole):
    thin, full = module_of(folder), module_of(whole)
    assert thin.split_table() == full.split_table()
    batches = [next(iter(module.train_dataloader())) for module in (thin, full)]
    assert batches[0]["gathers"].shape == (4, 5, 50, 32)
    assert torch.equal(batches[0]["gathers"], batches[1]["gathers"][:, :, ::4].half().float())
    assert torch.equal(batches[0]["index"], batches[1]["index"])
    assert torch.equal(batches[0]["velocity"], batches[1]["velocity"])


def test_the_sixth_shot_makes_the_mirror_image_exact(folder):
    batch = next(iter(module_of(folder, augment=FLIP).train_dataloader()))
    expected = simulate(batch["velocity"][:, 0], SURVEY)[:, :, ::4]
    assert (batch["gathers"] - expected).norm() / expected.norm() < 1e-3  # float16

    plain = {index: velocity for item in iter_of(folder) for index, velocity in item}
    for index, velocity in zip(batch["index"].tolist(), batch["velocity"], strict=True):
        assert torch.equal(velocity, plain[index].flip(-1))


def iter_of(folder):
    for batch in module_of(folder).train_dataloader():
        yield list(zip(batch["index"].tolist(), batch["velocity"], strict=True))


def test_no_simulation_is_needed_for_the_mirror_image(folder, monkeypatch):
    monkeypatch.setattr("fwi_lightning.data.training.simulate", None)
    samples = TrainingSamples(Recorded(module_of(folder).train_dataset), [Flip(SURVEY, 1.0)], seed=0)
    assert not samples[0, 1]["missing"].any()


def test_changed_maps_are_simulated_and_thinned(folder):
    physics = {"physics": {"_target_": "fwi_lightning.data.augment.Physics"}}
    batch = next(iter(module_of(folder, augment=physics).train_dataloader()))
    expected = simulate(batch["velocity"][:, 0], SURVEY)[:, :, ::4]
    assert (batch["gathers"] - expected).norm() / expected.norm() < 1e-3


def test_fresh_samples_beside_thinned_ones_are_thinned(folder):
    balance = {"shares": {"CurveFault_B": 1, "FlatVel_A": 1}, "supplement": "fresh", "samples": 4}
    batch = next(iter(module_of(folder, balance=balance).train_dataloader()))
    expected = simulate(batch["velocity"][:, 0], SURVEY)[:, :, ::4]
    assert (batch["gathers"] - expected).norm() / expected.norm() < 1e-3


def test_a_model_reads_thinned_and_whole_records_alike(whole):
    gathers = torch.from_numpy(np.load(whole / "Style_A/data/data1.npy"))[:, [0, 1, 3, 4, 5]]
    for use in ("none", "channel"):
        model = ResidualUNet(SURVEY, width=8, levels=2, source_velocity=use)
        assert torch.equal(model.predict(gathers), model.predict(gathers[:, :, ::4]))
    with pytest.raises(UserError, match=r"this model reads \(5, 200, 32\)"):
        model.predict(gathers[:, :, ::2])


def test_sample_0_alone_tells_the_velocity_at_the_shots(folder):
    thin = torch.from_numpy(np.load(folder / "Style_A/data/data1.npy")).float()
    velocity = torch.from_numpy(np.load(folder / "Style_A/model/model1.npy"))
    assert (source_velocity(thin, CLOSED) - velocity[:, 0, 1, list(CLOSED.shot_columns)]).abs().max() < 2


def test_the_waveform_misfit_of_the_true_map_is_that_of_rounding(folder):
    batch = next(iter(module_of(folder).train_dataloader()))
    loss = WaveformMisfit(shots=2)
    assert loss.measure(batch["velocity"], batch, SURVEY).max() < 1e-3
    assert loss.measure(batch["velocity"] * 1.1, batch, SURVEY).min() > 0.1


class TestErrors:
    def test_of_another_time_step_than_the_model_reads(self):
        check_thinning(50, InputTransform(SURVEY, 0.004))
        check_thinning(200, InputTransform(SURVEY, 0.004))
        with pytest.raises(UserError, match=r"every 0.004 s, and model.time_step is 0.002: set model.time_step=0.004"):
            check_thinning(50, InputTransform(SURVEY, 0.002))

    def test_without_the_manifest_nobody_knows_what_the_records_are(self, folder, tmp_path):
        (tmp_path / "s").symlink_to(folder / "Style_A")
        with pytest.raises(UserError, match="it has 6 shots where the survey has 5"):
            find_parts(tmp_path, survey=SURVEY, thinned=True)

    def test_of_another_survey(self, folder):
        with pytest.raises(UserError, match=r"simulated with frequency=15.0, not 12.0"):
            find_parts(folder, survey=replace(SURVEY, frequency=12.0), thinned=True)

    def test_of_other_shots(self, folder):
        with pytest.raises(UserError, match=r"simulated with shot_columns="):
            find_parts(folder, survey=replace(SURVEY, shot_columns=(1, 8, 16, 23, 31)), thinned=True)

    def test_where_whole_records_are_needed(self, folder):
        with pytest.raises(UserError, match=r"gathers must be \(5, 200, 32\)"):
            find_parts(folder, survey=SURVEY)

    def test_thinned_beside_whole(self, folder, whole, tmp_path):
        five = tmp_path / "five"
        write_survey(five, survey=SURVEY, on_progress=lambda *_: None, **SETTINGS)
        (tmp_path / "six").symlink_to(folder)
        with pytest.raises(UserError, match=r"200 time samples and .* of 50"):
            module_of(tmp_path)

    @pytest.mark.parametrize(
        ("setting", "sentence"),
        [
            ({"time_step": 0.0015}, "time_step must be a multiple of the survey's 0.001 s"),
            ({"time_step": 0.02}, "time_step=0.02 s is too long for a wavelet"),
            ({"dtype": "int8"}, "dtype must be float32 or float16"),
        ],
    )
    def test_settings(self, tmp_path, setting, sentence):
        with pytest.raises(UserError, match=sentence):
            write_survey(tmp_path / "s", survey=SURVEY, **(SETTINGS | setting))

    def test_another_time_step_in_the_same_folder(self, folder):
        before = json.loads((folder / "manifest.json").read_text())
        with pytest.raises(UserError, match=r"with time_step=0.004, not None"):
            write_survey(folder, survey=CLOSED, dtype="float16", **SETTINGS)
        assert json.loads((folder / "manifest.json").read_text()) == before
