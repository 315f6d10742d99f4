"""Shards are there whole or not at all, however often their writing stops and however many write."""

from __future__ import annotations

import json
import os
import resource
import threading

import numpy as np
import pytest

from fwi_lightning.data import find_parts
from fwi_lightning.data.ledger import Share
from fwi_lightning.data.shards import writing
from fwi_lightning.data.shards.writing import check_shards, shard_settings, write_shards
from fwi_lightning.errors import UserError
from tests.data.test_shards import write


def settings_of(kaggle, survey, **changes):
    known = {"samples_per_shard": 7, "illumination": False}
    return shard_settings(find_parts(kaggle, survey=survey), survey, **(known | changes))


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.tar")}


@pytest.fixture(scope="module")
def whole(kaggle, survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write(kaggle, survey, folder)
    return folder


class Stop:
    """Raises at one of the samples read."""

    def __init__(self, monkeypatch, at, error):
        self.left, read = at, writing.read_gathers

        def stopping(*arguments):
            self.left -= 1
            if self.left == 0:
                raise error
            return read(*arguments)

        monkeypatch.setattr(writing, "read_gathers", stopping)


def test_a_stop_leaves_whole_shards_and_the_next_start_the_rest(kaggle, survey, tmp_path, whole, monkeypatch):
    stop = Stop(monkeypatch, 7 * 3 + 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(kaggle, survey, tmp_path)
    assert len(content(tmp_path)) == 3
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "index.json").exists()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    stop.left = 0
    assert write(kaggle, survey, tmp_path) == ""
    assert -stop.left == 200 - sum(len(s["numbers"]) for s in index_of(tmp_path)["shards"][:3])
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert content(tmp_path) == content(whole)
    assert index_of(tmp_path) == index_of(whole)


def index_of(folder):
    return json.loads((folder / "index.json").read_text())


def test_shares_make_the_same_shards_in_any_order(kaggle, survey, tmp_path, whole):
    answers = {part: write(kaggle, survey, tmp_path, Share(part, 4)) for part in (2, 0, 3, 1)}
    assert answers == {2: "part 0, 1, 3 of 4", 0: "part 1, 3 of 4", 3: "part 1 of 4", 1: ""}
    assert content(tmp_path) == content(whole)
    assert index_of(tmp_path) == index_of(whole)


def test_shares_at_the_same_time(kaggle, survey, tmp_path, whole):
    threads = [threading.Thread(target=write, args=(kaggle, survey, tmp_path, Share(k, 3))) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(tmp_path) == content(whole)
    assert index_of(tmp_path) == index_of(whole)


def test_a_failed_share_is_redone_alone(kaggle, survey, tmp_path, whole, monkeypatch):
    Stop(monkeypatch, 10, UserError("a sample is broken"))
    with pytest.raises(UserError, match="a sample is broken"):
        write(kaggle, survey, tmp_path, Share(0, 2))
    assert write(kaggle, survey, tmp_path, Share(1, 2)) == "part 0 of 2"
    assert check_shards(tmp_path, settings_of(kaggle, survey), Share(0, 2)) == "part 0 of 2"
    assert write(kaggle, survey, tmp_path, Share(0, 2)) == ""
    assert content(tmp_path) == content(whole)


def test_a_check_finds_what_is_damaged_and_the_next_start_mends_it(kaggle, survey, tmp_path, whole):
    write(kaggle, survey, tmp_path)
    settings = settings_of(kaggle, survey)
    assert check_shards(tmp_path, settings) == ""
    damaged = bytearray((tmp_path / "fold3/00002.tar").read_bytes())
    damaged[700] ^= 1
    (tmp_path / "fold3/00002.tar").write_bytes(damaged)
    (tmp_path / "fold0/00001.tar").unlink()
    assert check_shards(tmp_path, settings) == "fold0/00001.tar, fold3/00002.tar"
    assert not (tmp_path / "index.json").exists()
    assert write(kaggle, survey, tmp_path) == ""
    assert content(tmp_path) == content(whole)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_shard(kaggle, survey, tmp_path, whole):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))  # as a full disk: a write fails half-way
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\): choose .* on a disk with space"):
            write(kaggle, survey, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert content(tmp_path) == {}
    assert not list(tmp_path.rglob("*.part"))
    write(kaggle, survey, tmp_path)
    assert content(tmp_path) == content(whole)


def test_progress_counts_what_was_there(kaggle, survey, tmp_path):
    write(kaggle, survey, tmp_path, Share(0, 2))
    parts, steps = find_parts(kaggle, survey=survey), []
    write_shards(parts, tmp_path, settings_of(kaggle, survey), on_progress=lambda *step: steps.append(step))
    assert steps[0][0] > 100
    assert steps[-1] == (200, 200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "dtype must be float16 or float32, got 'float64'"),
        ({"samples_per_shard": 0}, "samples_per_shard must be at least 1, got 0"),
        ({"samples_per_shard": None, "shard_mb": 0.001}, r"shard_mb must be at least 0\.014, the size of one sample"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"folds": 30}, "family CurveFault_A has 20 samples, fewer than folds=30"),
    ],
)
def test_settings_out_of_range(kaggle, survey, change, message):
    with pytest.raises(UserError, match=message):
        settings_of(kaggle, survey, **change)


@pytest.mark.parametrize(("part", "parts", "name"), [(4, 4, "part must be 0 to 3"), (-1, 2, "part"), (0, 0, "parts")])
def test_shares_that_cannot_be(part, parts, name):
    with pytest.raises(UserError, match=f"^{name}"):
        Share(part, parts)


def test_a_size_in_mb_is_kept(kaggle, survey, tmp_path):
    write(kaggle, survey, tmp_path, samples_per_shard=None, shard_mb=0.03)
    assert max(len(data) for data in content(tmp_path).values()) <= 30_000


def test_other_settings_and_other_files_are_refused(kaggle, survey, tmp_path, whole):
    with pytest.raises(UserError, match=r"holds shards with dtype=float32, not float16: choose another folder"):
        write(kaggle, survey, whole, dtype="float16")
    with pytest.raises(UserError, match=r"holds shards with seed=0, not 3"):
        write(kaggle, survey, whole, Share(1, 3), seed=3)
    (tmp_path / "other.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds files that are not of shards, such as .*other\.tar"):
        write(kaggle, survey, tmp_path)


def test_values_beyond_float16(survey, pair, tmp_path):
    for number in (1, 2):
        pair(tmp_path / f"in/data{number}.npy", tmp_path / f"in/model{number}.npy", 3)
    large = np.load(tmp_path / "in/data1.npy")
    large[1, 0, 2, 3] = 70000
    np.save(tmp_path / "in/data1.npy", large)
    with pytest.raises(UserError, match=r"data1\.npy, sample 1, holds values of up to 70000, more than float16 can"):
        write(tmp_path / "in", survey, tmp_path / "out", folds=2, dtype="float16")
    assert write(tmp_path / "in", survey, tmp_path / "out2", folds=2) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(kaggle, survey, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        write(kaggle, survey, tmp_path)
