from __future__ import annotations

import csv

import lightning
import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataModule, find_parts
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI


@pytest.fixture
def module(kaggle, survey):
    module = GathersDataModule(str(kaggle), survey.to_dict(), fold=3, batch_size=8, eval_batch_size=7)
    module.prepare_data()
    module.setup("fit")
    return module


def indices(loader):
    return [index for batch in loader for index in batch["index"].tolist()]


def test_batches(module):
    batch = next(iter(module.train_dataloader()))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "gathers": ((8, 2, 8, 6), torch.float32),
        "velocity": ((8, 1, 4, 6), torch.float32),
        "family": ((8,), torch.int64),
        "index": ((8,), torch.int64),
    }


def test_folds_are_held_out_for_validation_and_test(module):
    train, val, test = (
        indices(loader) for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    )
    assert sorted(train + val) == list(range(200))
    assert len(val) == 40
    assert val == test == sorted(val)


def test_families_and_their_counts(module):
    assert module.families == list(FAMILIES)
    assert module.family_counts == dict.fromkeys(FAMILIES, 16)


def test_unknown_families_follow_the_known(tmp_path, survey, pair):
    for family in ("zinc", "Style_B", "FlatVel_A", "alum"):
        pair(tmp_path / family / "data1.npy", tmp_path / family / "model1.npy", 2)
    module = GathersDataModule(str(tmp_path), survey, folds=2)
    module.setup()
    assert module.families == ["FlatVel_A", "Style_B", "alum", "zinc"]


def test_a_file_that_disappears_during_an_epoch_is_named_and_the_rest_goes_on_once_it_is_back(tmp_path, survey, pair):
    for number in range(6):
        pair(tmp_path / f"data{number}.npy", tmp_path / f"model{number}.npy", 2)

    def epoch(after_first=lambda: None):
        data = GathersDataModule(str(tmp_path), survey, folds=3, batch_size=2)
        data.setup()
        batches = []
        for batch in data.train_dataloader():
            batches.append(batch["index"])
            after_first()
        return torch.cat(batches).tolist()

    whole = epoch()

    def hide():
        for path in tmp_path.glob("data*.npy"):
            path.rename(path.with_suffix(".away"))

    with pytest.raises(UserError, match=r"data\d\.npy does not exist: correct the path, or put the file back\.$"):
        epoch(hide)
    for path in tmp_path.glob("*.away"):
        path.rename(path.with_suffix(".npy"))
    assert epoch() == whole


def test_the_mean_map(module, kaggle, survey):
    parts = find_parts(kaggle, survey=survey)
    labels = np.concatenate([np.load(part.velocity) for part in parts])
    kept = module.train_dataset.rows
    assert np.allclose(module.mean_velocity(), labels[kept].mean(0, dtype=np.float64), rtol=1e-6)
    assert module.mean_velocity().dtype == np.float32
    assert np.array_equal(np.stack(list(module.training_velocities())), labels[kept])


def test_the_split_is_written(module, tmp_path):
    module.write_split(tmp_path / "split.csv")
    rows = list(csv.DictReader((tmp_path / "split.csv").open()))
    held = sum(int(row["last_row"]) - int(row["first_row"]) + 1 for row in rows if row["fold"] == "3")
    assert held == len(module.val_dataset)
    assert len(rows) == len(module.split_table())


def test_another_root_for_the_test(kaggle, survey, tmp_path, pair):
    pair(tmp_path / "salt" / "data1.npy", tmp_path / "salt" / "model1.npy", 3)
    module = GathersDataModule(str(kaggle), survey, test_root=str(tmp_path))
    module.setup("test")
    assert module.families == [*FAMILIES, "salt"]
    assert [batch["family"].tolist() for batch in module.test_dataloader()] == [[10, 10, 10]]


def test_a_list_of_files(kaggle, survey, tmp_path):
    split = tmp_path / "train.txt"
    split.write_text("FlatVel_A/data/data1.npy\tFlatVel_A/model/model1.npy\n")
    module = GathersDataModule(str(kaggle), survey, split=str(split))
    module.setup()
    assert (len(module.train_dataset), len(module.val_dataset)) == (8, 2)


def test_setup_again_changes_nothing(module):
    before = module.train_dataset
    module.setup("test")
    assert module.train_dataset is before


def test_hyper_parameters_are_plain(module):
    hparams = dict(module.hparams)
    assert hparams["survey"]["grid"] == [4, 6]
    again = GathersDataModule(**hparams)
    assert (again.survey, again.fold, again.batch_size) == (module.survey, 3, 8)
    assert GathersDataModule("x").survey == OPENFWI


def test_workers_read_the_same(kaggle, survey):
    batches = []
    for workers in (0, 1):
        module = GathersDataModule(str(kaggle), survey, batch_size=32, num_workers=workers)
        module.setup()
        loader = module.train_dataloader()
        loader.sampler.set_epoch(2)
        batches.append(list(loader))
    assert len(batches[0]) == 5
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


class TestErrors:
    @pytest.mark.parametrize("setting", [{"batch_size": 0}, {"eval_batch_size": -1}, {"num_workers": -1}, {"seed": -1}])
    def test_numbers_out_of_range(self, setting):
        (name,) = setting
        with pytest.raises(UserError, match=rf"{name} must be a whole number of at least \d, got {setting[name]}"):
            GathersDataModule("x", **setting)

    def test_no_such_fold(self, kaggle, survey):
        with pytest.raises(UserError, match="fold must be 0 to 4 with folds=5, got 7"):
            GathersDataModule(str(kaggle), survey, fold=7).setup()

    def test_no_batch_left(self, kaggle, survey):
        module = GathersDataModule(str(kaggle), survey, batch_size=161, drop_last=True)
        module.setup()
        with pytest.raises(UserError, match="batch_size=161 is more than the 160 training samples"):
            module.train_dataloader()

    def test_the_survey_of_other_gathers(self, kaggle):
        with pytest.raises(UserError, match="8 time samples where the survey has 1000"):
            GathersDataModule(str(kaggle)).setup()


class TestDevices:
    def test_each_reads_its_share(self, module, monkeypatch):
        seen = {"train": [], "val": []}
        for rank in range(3):
            monkeypatch.setattr(GathersDataModule, "_ranks", lambda self, rank=rank: (3, rank))
            seen["train"].append(indices(module.train_dataloader()))
            seen["val"].append(indices(module.val_dataloader()))
        assert [len(share) for share in seen["train"]] == [54, 54, 54]  # 160 filled up to 162
        assert {index for share in seen["train"] for index in share} == set(module.train_dataset.rows)
        assert sorted(index for share in seen["val"] for index in share) == module.val_dataset.rows.tolist()

    def test_lightning_leaves_the_samplers_in_place(self, module):
        trainer = lightning.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False
        )
        for loader in (module.train_dataloader(), module.val_dataloader()):
            assert not trainer._data_connector._requires_distributed_sampler(loader)


@pytest.mark.parametrize(("asked", "used"), [(7, 7), (None, 160), (500, 160)])
def test_fewer_training_samples_are_spread_over_all(kaggle, survey, asked, used):
    module = GathersDataModule(str(kaggle), survey.to_dict(), fold=3, training_samples=asked)
    module.setup("fit")
    assert module.samples_per_epoch == used == sum(module.family_counts.values()) == len(indices_of_epoch(module))
    assert len(module.val_dataset) == 40
    if asked == 7:
        assert len({family for family, count in module.family_counts.items() if count}) == 7


def indices_of_epoch(module):
    return set(indices(module.train_dataloader()))
