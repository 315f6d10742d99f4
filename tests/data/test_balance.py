"""Families in stated shares: how many of which, from where, and the same after a stop."""

import contextlib
from collections import Counter

import lightning
import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataModule, SyntheticDataModule
from fwi_lightning.data.fresh_maps import drawn_map
from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey
from tests.data.test_resume import Module, Stop

SIZES = {"FlatVel_A": 40, "Style_B": 20, "CurveFault_B": 6}


@pytest.fixture
def root(tmp_path, pair):
    """One large, one middling and one small family, four files each."""
    for family, samples in SIZES.items():
        for number, count in enumerate(np.diff(np.linspace(0, samples, 5).astype(int)).tolist()):
            pair(
                tmp_path / "first" / family / f"data{number}.npy", tmp_path / f"first/{family}/model{number}.npy", count
            )
    for number in range(2):
        folder = tmp_path / "second" / "CurveFault_B"
        pair(folder / f"data{number}.npy", folder / f"model{number}.npy", 5)
    return tmp_path


def module(root, survey, **balance):
    data = GathersDataModule(str(root / "first"), survey, folds=2, batch_size=4, balance={"shares": "equal"} | balance)
    data.setup()
    return data


def epoch_of(data, epoch=0):
    """Family and number of every sample of an epoch, in the order of training."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    names = [data.families[number] for batch in batches for number in batch["family"].tolist()]
    return names, [number for batch in batches for number in batch["index"].tolist()]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ("equal", {"FlatVel_A": 20, "Style_B": 20, "CurveFault_B": 20}),
        ({"CurveFault_B": 3, "FlatVel_A": 1}, {"FlatVel_A": 15, "CurveFault_B": 45}),
        ({"FlatVel_A": 0.1, "Style_B": 0.1, "CurveFault_B": 0.1}, {"FlatVel_A": 20, "Style_B": 20, "CurveFault_B": 20}),
    ],
)
def test_shares_are_those_stated(root, survey, shares, expected):
    data = module(root, survey, shares=shares, samples=60)
    for epoch in range(3):
        assert Counter(epoch_of(data, epoch)[0]) == expected


def test_without_a_number_an_epoch_has_as_many_samples_as_there_are(root, survey):
    data = module(root, survey)
    assert data.samples_per_epoch == len(data.train_dataset) == 33
    assert set(Counter(epoch_of(data)[0]).values()) == {11}


def test_of_a_large_family_all_comes_before_any_comes_again(root, survey):
    data = module(root, survey, shares={"FlatVel_A": 1}, samples=5)
    seen = [number for epoch in range(4) for number in epoch_of(data, epoch)[1]]
    assert len(set(seen)) == 20 == len(seen)
    assert set(epoch_of(data, 4)[1]) <= set(seen)


def test_a_small_family_without_a_supplement_repeats_evenly(root, survey):
    data = module(root, survey, shares={"CurveFault_B": 1}, samples=9)
    assert sorted(Counter(epoch_of(data)[1]).values()) == [3, 3, 3]


def test_a_small_family_is_used_whole_and_supplemented_from_another_folder(root, survey):
    data = module(root, survey, supplement=str(root / "second"), samples=24)
    recorded = {int(data.train_dataset.rows[place]) for place in range(len(data.train_dataset))}
    more = []
    for epoch in range(2):
        names, numbers = epoch_of(data, epoch)
        fault = [number for name, number in zip(names, numbers, strict=True) if name == "CurveFault_B"]
        assert len(fault) == 8
        assert len(recorded & set(fault)) == 3
        more += sorted(set(fault) - recorded)
    assert len(set(more)) == 10 == len(more), "the second source takes turns too"
    held = {int(number) for number in data.val_dataset.rows}
    assert not held & set(more)
    assert data.drawn(0)["CurveFault_B"] == {"recorded": 3, "from the supplement": 5}
    assert data.drawn(0)["FlatVel_A"] == {"recorded": 8}


def test_samples_of_the_supplement_are_what_its_files_hold(root, survey):
    data = module(root, survey, shares={"CurveFault_B": 1}, supplement=str(root / "second"), samples=13)
    there = np.concatenate([np.load(root / f"second/CurveFault_B/model{number}.npy") for number in range(2)])
    batch = torch.cat([batch["velocity"] for batch in data.train_dataloader()]).numpy()
    assert sum(any(np.array_equal(one, other) for other in there) for one in batch) == 10


def test_a_small_family_is_supplemented_by_fresh_samples(tmp_path):
    wide = Survey.surface(30, depth=30, shots=3, samples=40, sponge=30)
    data = SyntheticDataModule(
        cache=str(tmp_path),
        survey=wide,
        families=["FlatVel_A", "FlatFault_A"],
        samples_per_family=4,
        samples_per_file=2,
        folds=2,
        batch_size=5,
        balance={"shares": {"FlatVel_A": 1, "FlatFault_A": 4}, "supplement": "fresh", "samples": 5},
    )
    data.prepare_data()
    data.setup()
    assert data.drawn(0) == {"FlatVel_A": {"recorded": 1}, "FlatFault_A": {"recorded": 2, "fresh": 2}}
    drawn = {}
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        (batch,) = list(loader)
        torch.testing.assert_close(batch["gathers"], simulate(batch["velocity"][:, 0], wide))
        fresh = batch["index"] >= 8
        assert int(fresh.sum()) == 2
        assert all(data.families[family] == "FlatFault_A" for family in batch["family"][fresh])
        drawn |= dict(zip(batch["index"][fresh].tolist(), batch["velocity"][fresh], strict=True))
    assert len(drawn) == 4
    assert len({one.numpy().tobytes() for one in drawn.values()}) == 4
    expected = {drawn_map(wide, "FlatFault_A", (0, 0, place)).numpy().tobytes() for place in range(5)}
    assert sum(one.numpy().tobytes() in expected for one in drawn.values()) == 2


def test_an_epoch_depends_on_seed_and_epoch_alone(root, survey):
    data, again = (module(root, survey, samples=30) for _ in range(2))
    assert epoch_of(data, 3) == epoch_of(again, 3)
    assert epoch_of(data, 2)[1] != epoch_of(data, 3)[1]


def test_a_stopped_run_goes_on_with_the_same_samples(root, survey, tmp_path):
    def fit(callbacks=(), ckpt=None):
        model = Module()
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=list(callbacks),
            num_sanity_val_steps=0,
        )
        data = module(root, survey, supplement=str(root / "second"), samples=24)
        with contextlib.suppress(RuntimeError):  # which stops it
            trainer.fit(model, datamodule=data, ckpt_path=ckpt)
        return model.seen

    path = tmp_path / "stopped.ckpt"
    whole = fit()
    before = fit([Stop("on_train_batch_end", 8, path)])
    after = fit(ckpt=path)
    assert before + after == whole


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"shares": "even"}, "balance.shares must be equal, names with shares, or null, got 'even'"),
        ({"shares": {"FlatVel_C": 1}}, "balance.shares has 'FlatVel_C', which is no family here: there are FlatVel_A"),
        ({"shares": {"FlatVel_A": -1}}, "balance.shares.FlatVel_A must be a number of at least 0, got -1"),
        ({"shares": {"FlatVel_A": 0}}, "balance.shares leaves every family out"),
        ({"samples": 0}, "balance.samples must be a whole number of at least 1, or null, got 0"),
        ({"shares": None, "samples": 5}, "need shares: add balance.shares=equal"),
        ({"supplement": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_settings_that_do_not_fit(root, survey, balance, message):
    with pytest.raises(UserError, match=message):
        module(root, survey, **balance).train_dataloader()


def test_the_first_source_is_no_supplement(root, survey):
    with pytest.raises(UserError, match=r"which data\.root has too: give another folder"):
        module(root, survey, supplement=str(root / "first"))


def test_an_unknown_family_cannot_be_drawn(tmp_path, survey, pair):
    for number in range(2):
        pair(tmp_path / f"salt/data{number}.npy", tmp_path / f"salt/model{number}.npy", 2)
    data = GathersDataModule(
        str(tmp_path), survey, folds=2, balance={"shares": "equal", "supplement": "fresh", "samples": 9}
    )
    data.setup()
    with pytest.raises(UserError, match=r"balance\.supplement=fresh cannot draw salt"):
        data.train_dataloader()
