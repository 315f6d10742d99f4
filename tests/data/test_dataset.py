from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataset, find_parts
from fwi_lightning.errors import UserError


def load(parts, part, row):
    return np.load(parts[part].gathers)[row], np.load(parts[part].velocity)[row]


def test_items_are_what_the_files_hold(kaggle, survey):
    parts = find_parts(kaggle, survey=survey)
    dataset = GathersDataset(parts)
    assert len(dataset) == 200
    for index in (0, 9, 10, 137, 199):
        item = dataset[index]
        gathers, velocity = load(parts, index // 10, index % 10)
        assert np.array_equal(item["gathers"].numpy(), gathers)
        assert np.array_equal(item["velocity"].numpy(), velocity)
        assert item["velocity"].shape == (1, 4, 6)
        assert item["index"] == index
        assert dataset.families[item["family"]] == parts[index // 10].family
        assert dataset.name(index) == (parts[index // 10].name, index % 10)
        assert dataset.locate(index) == (parts[index // 10], index % 10)


def test_chosen_rows_keep_their_numbers(kaggle, survey):
    parts = find_parts(kaggle, survey=survey)
    dataset = GathersDataset(parts, rows=[150, 3], families=["other", *sorted({part.family for part in parts})])
    assert len(dataset) == 2
    assert [dataset[index]["index"] for index in (0, 1)] == [150, 3]
    assert np.array_equal(dataset[0]["gathers"].numpy(), load(parts, 15, 0)[0])
    assert dataset[1]["family"] == 1
    with pytest.raises(IndexError):
        dataset[2]


def test_files_of_different_length(tmp_path, survey, pair):
    for number, samples in enumerate((1, 4, 2)):
        pair(tmp_path / f"data{number}.npy", tmp_path / f"model{number}.npy", samples)
    dataset = GathersDataset(find_parts(tmp_path, survey=survey))
    assert [dataset.name(index) for index in range(7)] == [
        ("data0", 0), ("data1", 0), ("data1", 1), ("data1", 2), ("data1", 3), ("data2", 0), ("data2", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_types_come_as_float32(tmp_path, survey, dtype):
    gathers = np.linspace(-2, 2, 96).reshape(2, 8, 6).astype(dtype)
    np.save(tmp_path / "data1.npy", gathers)
    np.save(tmp_path / "model1.npy", np.full((4, 6), 2000, np.int32))
    item = GathersDataset(find_parts(tmp_path, survey=survey))[0]
    assert item["gathers"].dtype == item["velocity"].dtype == torch.float32
    assert np.array_equal(item["gathers"].numpy(), gathers.astype(np.float32))
    assert (item["velocity"] == 2000).all()
    assert item["velocity"].shape == (1, 4, 6)


def test_extra_axes_and_fortran_order(tmp_path, survey):
    gathers = np.random.default_rng(0).random((3, 1, 2, 8, 6), dtype=np.float32)
    np.save(tmp_path / "data1.npy", np.asfortranarray(gathers))
    np.save(tmp_path / "model1.npy", 2000 + gathers[:, 0, 0, :4])
    dataset = GathersDataset(find_parts(tmp_path, survey=survey))
    for row in range(3):
        assert np.array_equal(dataset[row]["gathers"].numpy(), gathers[row, 0])
        assert np.array_equal(dataset[row]["velocity"].numpy(), 2000 + gathers[row, :, 0, :4])


def test_without_labels(kaggle, survey):
    dataset = GathersDataset(find_parts(kaggle / "Style_A", survey=survey, labels=False))
    assert set(dataset[0]) == {"gathers", "family", "index"}


def test_an_item_belongs_to_the_reader(kaggle, survey):
    dataset = GathersDataset(find_parts(kaggle, survey=survey))
    before = dataset[0]["gathers"].clone()
    dataset[0]["gathers"].zero_()
    assert torch.equal(dataset[0]["gathers"], before)


def test_pickling_carries_no_data(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((5, 1000, 70), np.float32))
    dataset = GathersDataset(find_parts(tmp_path, labels=False))
    dataset[0]
    copied = pickle.dumps(dataset)
    assert len(copied) < 10_000
    assert torch.equal(pickle.loads(copied)[0]["gathers"], dataset[0]["gathers"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is known on Linux only")
def test_anonymous_memory_does_not_grow_with_the_data(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((100, 5, 1000, 70), np.float32))  # 140 MB
    dataset = GathersDataset(find_parts(tmp_path, labels=False))

    def anonymous():
        return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

    dataset[0]
    before = anonymous()
    for index in range(100):
        dataset[index]
    assert anonymous() - before < 14


class TestErrors:
    def dataset(self, folder, survey, gathers=None, velocity=None):
        values = [np.ones((3, 2, 8, 6), np.float32), np.full((3, 1, 4, 6), 2000, np.float32)]
        for array, changes in zip(values, (gathers, velocity), strict=True):
            for where, value in (changes or {}).items():
                array[where] = value
        np.save(folder / "data1.npy", values[0])
        np.save(folder / "model1.npy", values[1])
        return GathersDataset(find_parts(folder, survey=survey))

    def test_gathers_that_are_not_finite(self, tmp_path, survey):
        dataset = self.dataset(tmp_path, survey, gathers={(1, 0, 2, 3): np.nan, (1, 1, 0, 0): -np.inf})
        dataset[0]
        with pytest.raises(UserError, match=r"data1\.npy, sample 1, holds values.*1 NaN, 1 infinite.*mend or remove"):
            dataset[1]

    def test_labels_that_are_not_finite(self, tmp_path, survey):
        dataset = self.dataset(tmp_path, survey, velocity={(2, 0, 2, 3): np.inf})
        with pytest.raises(UserError, match=r"model1\.npy, sample 2, holds values.*0 NaN, 1 infinite"):
            dataset[2]

    @pytest.mark.parametrize("value", [-0.3, 0, 3.2, 50_000])
    def test_labels_that_are_no_velocities(self, tmp_path, survey, value):
        dataset = self.dataset(tmp_path, survey, velocity={(0, 0, 1, 1): value})
        with pytest.raises(
            UserError, match=r"model1\.npy, sample 0, holds velocities from .* must be in m/s.*\[-1, 1\]"
        ):
            dataset[0]

    def test_a_file_that_goes_away_or_changes(self, tmp_path, survey):
        dataset = self.dataset(tmp_path, survey)
        np.save(tmp_path / "data1.npy", np.ones((2, 2, 8, 6), np.float32))
        with pytest.raises(UserError, match=r"data1\.npy has changed since the scan.*\(2, 2, 8, 6\)"):
            dataset[0]
        (tmp_path / "model1.npy").unlink()
        (tmp_path / "data1.npy").unlink()
        with pytest.raises(UserError, match=r"data1\.npy does not exist"):
            pickle.loads(pickle.dumps(dataset))[0]
