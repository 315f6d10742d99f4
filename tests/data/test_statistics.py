"""The scale of the input: that of all training samples, found by reading each of them once."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataModule, ShardsDataModule, beside, find_parts, statistics
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.shards.dataset import ShardDataset
from fwi_lightning.data.shards.writing import shard_settings, write_shards
from fwi_lightning.errors import UserError
from fwi_lightning.models import InputTransform


@pytest.fixture
def root(tmp_path, pair):
    """Two families of two files of six samples each, with other amplitudes in each file."""
    for number, family in enumerate(("FlatVel_A", "Style_B")):
        for file in (1, 2):
            path = tmp_path / "data" / family / "data" / f"data{file}.npy"
            pair(path, path.parent.parent / "model" / f"model{file}.npy", 6)
            np.save(path, np.load(path) * 3 ** (2 * number + file))
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch):
    """Counts the gathers that are read."""
    counts = []
    for kind in (GathersDataset, ShardDataset):
        before = kind.gathers
        monkeypatch.setattr(
            kind, "gathers", lambda self, index, before=before: counts.append(index) or before(self, index)
        )
    return counts


def module(root, survey, **settings):
    data = GathersDataModule(str(root), survey, folds=2, **settings)
    data.setup()
    return data


def training_gathers(data, root, tmp_path):
    """The training samples of fold 0, straight from the files by the table of the split, (samples, 2, 8, 6)."""
    data.write_split(tmp_path / "split.csv")
    rows = list(csv.DictReader((tmp_path / "split.csv").open()))
    chosen = [row for row in rows if int(row["fold"]) != data.fold]
    return np.concatenate(
        [np.load(root / f"{row['part']}.npy")[int(row["first_row"]) : int(row["last_row"]) + 1] for row in chosen]
    ).astype(np.float64)


def expected(gathers, amplitudes):
    """Root mean square at each time that is kept (every fourth), one time after the other."""
    kept = gathers[:, :, ::4]
    if amplitudes == "log1p":
        kept = np.where(kept < 0, -1, 1) * np.log(1 + np.abs(kept))
    if amplitudes == "trace":
        kept = kept / np.linalg.norm(kept, axis=2, keepdims=True) * np.sqrt(kept.shape[2])
    rms = np.array([np.linalg.norm(kept[:, :, time]) / np.sqrt(kept[:, :, time].size) for time in range(2)])
    return np.maximum(rms, rms.max() / 10)


@pytest.mark.parametrize("amplitudes", ["log1p", "trace", "raw"])
def test_it_is_that_of_all_training_samples_of_the_fold(root, survey, tmp_path, amplitudes):
    data = module(root, survey)
    transform = InputTransform(survey, 0.004, amplitudes)
    transform.fit(torch.from_numpy(data.mean_squares(transform)))
    rms = expected(training_gathers(data, root, tmp_path), amplitudes)
    np.testing.assert_allclose(transform.scale[:, 0].numpy(), rms, rtol=1e-6)


def test_each_sample_is_read_once_whatever_folds_and_models_follow(root, survey, read):
    transform = InputTransform(survey)
    first = module(root, survey).mean_squares(transform)
    assert len(read) == 12
    np.testing.assert_array_equal(module(root, survey).mean_squares(transform), first)
    module(root, survey, training_samples=5).mean_squares(InputTransform(survey))
    assert len(read) == 12
    module(root, survey, fold=1).mean_squares(transform)
    assert len(read) == 24
    module(root, survey).mean_squares(InputTransform(survey, amplitudes="raw"))
    assert len(read) == 36, "other amplitudes are other statistics"
    path = root / "FlatVel_A/data/data1.npy"
    os.utime(path, ns=(1, 1))
    for fold in (0, 1):
        module(root, survey, fold=fold).mean_squares(transform)
    assert len(read) == 36 + 6, "a changed file is read again, and it alone"


def test_a_choice_of_samples_is_spread_evenly(root, survey, tmp_path, read):
    data = module(root, survey, statistics_samples=3)
    transform = InputTransform(survey, amplitudes="raw")
    found = data.mean_squares(transform)
    assert read == [0, 5, 11]
    every = training_gathers(data, root, tmp_path)
    np.testing.assert_allclose(found, (every[[0, 5, 11], :, ::4] ** 2).mean(axis=(0, 1, 3)), rtol=1e-6)


def test_a_stop_loses_nothing_that_was_read(root, survey, read, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH", 2)
    transform, counted = InputTransform(survey), InputTransform.mean_squares
    undisturbed = module(root, survey, fold=1).mean_squares(transform)

    def stopping(self, gathers):
        if len(read) > 12 + 8:
            raise KeyboardInterrupt
        return counted(self, gathers)

    monkeypatch.setattr(InputTransform, "mean_squares", stopping)
    with pytest.raises(KeyboardInterrupt):
        module(root, survey).mean_squares(transform)
    monkeypatch.setattr(InputTransform, "mean_squares", counted)
    del read[:]
    stopped = module(root, survey).mean_squares(transform)
    assert len(read) == 12 - 8
    for file in root.rglob(".statistics/*.npy"):
        file.unlink()
    np.testing.assert_array_equal(module(root, survey).mean_squares(transform), stopped)
    np.testing.assert_array_equal(module(root, survey, fold=1).mean_squares(transform), undisturbed)


def test_where_nothing_can_be_written_beside_the_data(root, survey, tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(beside.os, "access", lambda *_: False)
    transform = InputTransform(survey)
    for _ in range(2):
        found = module(root, survey).mean_squares(transform)
    assert len(read) == 12
    assert len(list((tmp_path / "cache/statistics").glob("*.npy"))) == 2
    (tmp_path / "cache/statistics").rename(tmp_path / "kept")
    (tmp_path / "cache/statistics").write_text("a file where the folder should be")
    for _ in range(2):
        np.testing.assert_array_equal(module(root, survey).mean_squares(transform), found)
    assert len(read) == 12 + 24, "it is counted anew each time"


def test_a_sample_that_is_not_finite_is_named_before_training(root, survey):
    for path in root.rglob("data*.npy"):
        gathers = np.load(path)
        gathers[4, 1, 3, 2] = np.nan
        np.save(path, gathers)
    with pytest.raises(UserError, match=r"data\d.npy, sample 4, holds values that are not finite \(1 NaN"):
        module(root, survey).mean_squares(InputTransform(survey))


def test_copies_in_float16_have_their_own(root, survey, tmp_path):
    transform = InputTransform(survey)
    data = GathersDataModule(str(root), survey, folds=2, reading="half", half_folder=str(tmp_path / "half"))
    data.prepare_data()
    data.setup()
    rounded, exact = data.mean_squares(transform), module(root, survey).mean_squares(transform)
    np.testing.assert_allclose(rounded, exact, rtol=1e-3)
    assert not np.array_equal(rounded, exact)


def test_shards_have_those_of_their_files_without_a_broken_one(root, survey, tmp_path, read):
    parts = find_parts(root, survey=survey)
    settings = shard_settings(parts, survey, samples_per_shard=3, illumination=False, folds=2)
    write_shards(parts, tmp_path / "shards", settings, on_progress=lambda *_: None)

    def shards():
        data = ShardsDataModule(str(tmp_path / "shards"), survey=survey, folds=2, attempts=1)
        data.setup()
        return data

    transform = InputTransform(survey)
    np.testing.assert_allclose(
        shards().mean_squares(transform), module(root, survey).mean_squares(transform), rtol=1e-12
    )
    del read[:]
    shards().mean_squares(transform)
    assert not read
    for file in (tmp_path / "shards").rglob(".statistics/*.npy"):
        file.unlink()
    data = shards()
    os.truncate(data.train_dataset.store.name(data.train_dataset.shards[0]), 2000)
    lost = set(data.train_dataset.rows[:3].tolist())
    kept = [place for place in range(12) if int(data.train_dataset.rows[place]) not in lost]
    rest = np.stack([data.train_dataset[place]["gathers"].numpy() for place in kept])
    np.testing.assert_allclose(
        data.mean_squares(InputTransform(survey, amplitudes="raw")),
        (rest[:, :, ::4].astype(np.float64) ** 2).mean(axis=(0, 1, 3)),
        rtol=1e-6,
    )
