from __future__ import annotations

import csv
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fwi_lightning.data import Part, find_parts
from fwi_lightning.data.folds import assign_folds, rows_of_fold, split_table, write_split
from fwi_lightning.errors import UserError


def parts_of(**sizes):
    """Parts without files: family=[samples of its files]."""
    return [
        Part(Path(f"{family}/data{i}.npy"), None, family, samples, f"{family}/data{i}", (5, 1000, 70))
        for family, files in sizes.items()
        for i, samples in enumerate(files)
    ]


def folds_of_samples(parts, blocks):
    """Fold of every sample, in global order, straight from the blocks."""
    folds = [np.full(part.samples, -1) for part in parts]
    for block in blocks:
        assert (folds[block.part][block.start : block.stop] == -1).all()
        folds[block.part][block.start : block.stop] = block.fold
    return folds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 7])
def test_whole_files_where_there_are_enough(folds, seed):
    parts = parts_of(a=[500] * 60, b=[100, 20, 400, 7, 7, 7, 90, 33], c=[1] * 7)
    table = folds_of_samples(parts, assign_folds(parts, folds, seed))
    for family in "abc":
        files = [table[i] for i, part in enumerate(parts) if part.family == family]
        assert all(len(set(file)) == 1 for file in files)
        assert {file[0] for file in files} == set(range(folds))
    sizes = Counter(file[0] for file, part in zip(table, parts, strict=True) if part.family == "a")
    assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [3, 5, 10])
def test_kaggles_two_files_a_family(kaggle, survey, folds, seed, caplog):
    parts = find_parts(kaggle, survey=survey)
    with caplog.at_level(logging.INFO):
        blocks = assign_folds(parts, folds, seed)
    assert "FlatVel_A" in caplog.text
    assert "fewer files than folds" in caplog.text
    table = folds_of_samples(parts, blocks)
    for family in {part.family for part in parts}:
        laid_out = np.concatenate([table[i] for i, part in enumerate(parts) if part.family == family])
        counts = np.bincount(laid_out, minlength=folds)
        assert counts.min() >= 20 // folds
        assert counts.max() <= -(-20 // folds)
        assert (np.diff(laid_out) != 0).sum() == folds - 1  # one run each


def test_the_total_is_balanced_too():
    parts = parts_of(**{family: [10] * 6 for family in "abcdefghij"})
    sizes = Counter()
    for block in assign_folds(parts, 5, 0):
        sizes[block.fold] += block.stop - block.start
    assert set(sizes.values()) == {120}


def test_the_seed_decides():
    parts = parts_of(a=[5] * 30, b=[50])
    assert assign_folds(parts, 5, 1) == assign_folds(parts, 5, 1)
    assert assign_folds(parts, 5, 1) != assign_folds(parts, 5, 2)


def test_train_and_validation_cover_all_and_share_nothing(kaggle, survey):
    parts = find_parts(kaggle, survey=survey)
    blocks = assign_folds(parts, 5, 0)
    held_out = []
    for fold in range(5):
        kept, held = rows_of_fold(parts, blocks, fold)
        assert not set(kept) & set(held)
        assert sorted([*kept, *held]) == list(range(200))
        assert {parts[row // 10].family for row in held} == {part.family for part in parts}
        held_out += held.tolist()
    assert sorted(held_out) == list(range(200))


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_is_not_there(fold):
    parts = parts_of(a=[10])
    with pytest.raises(UserError, match=f"fold must be 0 to 4 with folds=5, got {fold}"):
        rows_of_fold(parts, assign_folds(parts, 5, 0), fold)


def test_too_few_samples_or_folds():
    with pytest.raises(UserError, match="family b has 3 samples, fewer than folds=5: set folds to 3 or less"):
        assign_folds(parts_of(a=[10], b=[2, 1]), 5, 0)
    with pytest.raises(UserError, match=r"folds must be at least 2 .*got 1"):
        assign_folds(parts_of(a=[10]), 1, 0)


def test_the_table(tmp_path):
    parts = parts_of(a=[4], b=[1, 1])
    blocks = assign_folds(parts, 2, 0)
    path = tmp_path / "split.csv"
    path.write_text("old")
    write_split(path, split_table(parts, blocks))
    rows = list(csv.DictReader(path.open()))
    assert [(row["part"], row["first_row"], row["last_row"], row["family"]) for row in rows] == [
        ("a/data0", "0", "1", "a"),
        ("a/data0", "2", "3", "a"),
        ("b/data0", "0", "0", "b"),
        ("b/data1", "0", "0", "b"),
    ]
    assert {row["fold"] for row in rows} == {"0", "1"}
    assert [file.name for file in tmp_path.iterdir()] == ["split.csv"]
    with pytest.raises(UserError, match=r"split\.csv cannot be written \(No such file or directory\)"):
        write_split(tmp_path / "none" / "split.csv", [])
