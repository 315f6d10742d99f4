"""Endless fresh maps: other ones in each epoch, the same on every run, whatever makes them."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import lightning
import numpy as np
import pytest
import torch

from fwi_lightning.config import build
from fwi_lightning.data import FreshDataModule, SyntheticDataModule
from fwi_lightning.data.fresh_maps import SEEDS, fresh_seed
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import Survey
from tests.data.test_resume import Module, Stop

SURVEY = Survey.surface(30, depth=30, shots=3, samples=40, sponge=30)
TWO = ["FlatVel_A", "Style_B"]
AUGMENT = {name: {"_target_": f"fwi_lightning.data.augment.{name}"} for name in ("Physics", "Flip", "Corruption")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def fresh(cache, needs_illumination=False, **settings):
    """Eight samples an epoch beside a survey of two families of four."""
    defaults = {"families": TWO, "samples_per_epoch": 8, "samples_per_family": 4, "samples_per_file": 2, "folds": 2}
    data = FreshDataModule(cache=cache, survey=SURVEY, batch_size=3, **(defaults | settings))
    data.needs_illumination = needs_illumination
    data.prepare_data()
    data.setup()
    return data


def epoch_of(data, epoch=0):
    """All samples of an epoch in the order of training, as one batch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_maps_are_drawn_and_their_gathers_simulated(cache):
    data = fresh(cache)
    batch = epoch_of(data)
    assert set(batch) == {"gathers", "velocity", "family", "index"}
    assert batch["gathers"].shape == (8, *SURVEY.gathers_shape)
    assert torch.equal(batch["gathers"], simulate(batch["velocity"][:, 0], SURVEY))
    layered = [len(velocity.unique()) < 10 for velocity in batch["velocity"]]  # FlatVel_A; Style_B has a texture
    assert layered == [data.families[family] == "FlatVel_A" for family in batch["family"]]


def test_no_map_comes_twice_nor_is_one_of_the_survey(cache):
    data = fresh(cache)
    drawn = [velocity for epoch in range(4) for velocity in epoch_of(data, epoch)["velocity"]]
    kept = [data.train_dataset[index]["velocity"] for index in range(4)]
    kept += [data.val_dataset[index]["velocity"] for index in range(4)]
    assert len({velocity.numpy().tobytes() for velocity in drawn + kept}) == 32 + 8
    indices = {int(index) for epoch in range(4) for index in epoch_of(data, epoch)["index"]}
    assert len(indices) == 32
    assert min(indices) >= 8


def test_seeds_of_fresh_maps_are_those_of_nothing_else():
    some = [0, 1, 2**32 - 1, 2**32, SEEDS - 1]
    seeds = [fresh_seed(seed, epoch) for seed, epoch in itertools.product(some, [0, 1, 2**32, 10**6])]
    assert len(set(seeds)) == len(seeds)
    # 128 bits each, where a survey's seed has 64: numpy fills both up to 128 before it adds family and index.
    assert all(2**127 <= seed < 2**128 for seed in seeds)
    states = [np.random.SeedSequence(seed, spawn_key=(1, 2)).generate_state(4).tobytes() for seed in some + seeds]
    assert len(set(states)) == len(states)


def test_validation_is_that_of_the_survey_with_the_same_settings(cache):
    shared = {"samples_per_family": 4, "samples_per_file": 2, "folds": 2, "fold": 1, "survey": SURVEY, "cache": cache}
    survey = SyntheticDataModule(families=TWO, **shared)
    survey.prepare_data()
    survey.setup()
    data = fresh(cache, fold=1, families={"Style_B": 3, "FlatVel_A": 1})
    assert data.root == survey.root
    assert len(data.val_dataset) == len(survey.val_dataset) == 4
    for one, other in zip(data.val_dataloader(), survey.val_dataloader(), strict=False):
        assert torch.equal(one["index"][:3], other["index"][:3])
    assert np.array_equal(data.mean_velocity(), survey.mean_velocity())


def test_recorded_data_validates_whatever_is_drawn(cache, tmp_path):
    (tmp_path / "mine").mkdir()
    velocity = draw("Style_A", 4, 1, shape=SURVEY.grid)
    np.save(tmp_path / "mine" / "model1.npy", velocity)
    np.save(tmp_path / "mine" / "data1.npy", simulate(torch.from_numpy(velocity[:, 0]), SURVEY).numpy())
    data = fresh(str(tmp_path / "unused"), root=str(tmp_path))
    assert not (tmp_path / "unused").exists()
    assert data.families == [*TWO, "mine"]
    assert {int(family) for batch in data.val_dataloader() for family in batch["family"]} == {2}
    assert {int(family) for family in epoch_of(data)["family"]} == {0, 1}


@pytest.mark.parametrize("families", [None, {"FlatVel_A": 1, "CurveFault_B": 3, "Style_B": 6}])
def test_families_have_their_shares_in_every_epoch(cache, families):
    data = fresh(cache, families=families, samples_per_epoch=37, samples_per_family=2, samples_per_file=1)
    wanted = families or dict.fromkeys(FAMILIES, 1)
    source = data._source()
    total = Counter()
    for epoch in range(200):
        counts = Counter(data.families[number] for number in source.families(epoch))
        for family, share in wanted.items():
            assert abs(counts[family] - 37 * share / sum(wanted.values())) < 1
        total += counts
    for family, share in wanted.items():
        assert total[family] / total.total() == pytest.approx(share / sum(wanted.values()), rel=0.02)
    assert [source.sample(3, index).family for index in range(37)] == source.families(3).tolist()


def test_recorded_samples_take_turns_in_the_rest_of_an_epoch(cache):
    data = fresh(cache, fresh_share=0.25)  # two fresh, six of four recorded
    kept = set(data.train_dataset.rows.tolist())
    used = []
    for epoch in range(4):
        batch = epoch_of(data, epoch)
        recorded = batch["index"] < 8
        assert recorded.sum() == 6
        used += sorted(batch["index"][recorded].tolist())
        for index, velocity, gathers in zip(batch["index"], batch["velocity"], batch["gathers"], strict=True):
            if index < 8:
                item = data.train_dataset[data.train_dataset.rows.tolist().index(int(index))]
                assert torch.equal(velocity, item["velocity"])
                assert torch.equal(gathers, item["gathers"])
    assert Counter(used) == dict.fromkeys(kept, 6)  # 24 places for four samples: no one more often than another


def test_nothing_fresh_and_nothing_recorded_are_both_possible(cache):
    assert (epoch_of(fresh(cache, fresh_share=0))["index"] < 8).all()
    assert (epoch_of(fresh(cache, fresh_share=1))["index"] >= 8).all()


def test_workers_and_device_make_the_same_samples(cache):
    settings = {"augment": AUGMENT, "fresh_share": 0.5, "seed": 4}
    expected = epoch_of(fresh(cache, **settings), 1)
    assert_equal(epoch_of(fresh(cache, simulate_on="device", **settings), 1), expected)
    assert_equal(epoch_of(fresh(cache, num_workers=2, **settings), 1), expected)


@pytest.mark.parametrize("simulate_on", ["workers", "device"])
def test_illumination_is_that_of_the_map(cache, simulate_on):
    augment = {"physics": AUGMENT["Physics"]}
    data = fresh(cache, needs_illumination=True, augment=augment, fresh_share=0.5, simulate_on=simulate_on)
    batch = epoch_of(data)
    assert (batch["index"] < 8).sum() == 4
    gathers, illumination = illuminate(batch["velocity"][:, 0], SURVEY)
    torch.testing.assert_close(batch["illumination"][:, 0], illumination, rtol=1e-5, atol=0)
    assert torch.equal(batch["gathers"], gathers)


def test_on_a_device_workers_simulate_nothing(cache, monkeypatch):
    loader = fresh(cache, simulate_on="device").train_dataloader()
    monkeypatch.setattr("fwi_lightning.data.training.simulate", None)
    assert all(batch["missing"].all() for batch in loader)


def fit(cache, callbacks=(), ckpt=None, module=None, **settings):
    data = fresh(cache, augment=AUGMENT, fresh_share=0.5, seed=3, **settings)
    module = module or Summing()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        max_epochs=2,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return module


class Summing(Module):
    """Keeps of every batch what it was made of; the weight depends on all of it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(SURVEY.gathers_shape).flatten())

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, *batch["index"].tolist(), float(batch["gathers"].double().sum())))
        prediction = batch["gathers"].flatten(1) @ self.weight
        return ((prediction - batch["velocity"].mean((1, 2, 3)) / 1000) ** 2).mean() * 1e-3


@pytest.mark.parametrize("simulate_on", ["workers", "device"])
def test_a_run_stopped_inside_an_epoch_goes_on_with_the_same_samples(cache, tmp_path, simulate_on):
    path = tmp_path / "stopped.ckpt"
    before, whole = Summing(), fit(cache, simulate_on=simulate_on)
    with pytest.raises(RuntimeError, match="stop"):
        fit(cache, [Stop("on_train_batch_end", 5, path)], module=before, simulate_on=simulate_on)
    resumed = fit(cache, ckpt=path, simulate_on=simulate_on)
    assert len(whole.seen) == 6
    assert before.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.isfinite(whole.weight).all()


def test_settings_come_back_from_a_checkpoint(cache):
    data = fresh(cache, families={"Style_B": 2, "FlatVel_A": 1}, augment=AUGMENT, fresh_share=0.5)
    settings = json.loads(json.dumps(dict(data.hparams)))
    again = FreshDataModule(**settings)
    assert (again.root, again.mixing, again.survey) == (data.root, data.mixing, SURVEY)
    assert [type(one) for one in again.augmentations] == [type(one) for one in data.augmentations]
    assert json.loads(json.dumps(dict(again.hparams))) == settings


def test_examples_are_pairs_before_and_after(cache):
    data = fresh(cache, augment=AUGMENT)
    before, after = data.training_examples(4, augmented=False), data.training_examples(4)
    assert torch.equal(before["index"], after["index"])
    assert torch.equal(before["gathers"], simulate(before["velocity"][:, 0], SURVEY))
    assert not torch.equal(before["velocity"], after["velocity"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"samples_per_epoch": 0}, "samples_per_epoch must be a whole number of at least 1, got 0"),
        ({"samples_per_epoch": 2.5}, "samples_per_epoch must be a whole number"),
        ({"fresh_share": 1.1}, "fresh_share must be from 0 .* to 1 .*, got 1.1"),
        ({"fresh_share": "half"}, "fresh_share must be .* got 'half'"),
        ({"families": ["FlatVel_C"]}, "families must be some of FlatVel_A, .*, got FlatVel_C"),
        ({"families": {"Style_C": 1}}, "families must be some of .*, got Style_C"),
        ({"families": {"Style_A": 0}}, "the share of Style_A must be a positive number, got 0: leave the family out"),
        ({"families": {}}, "families must be some of .*, got none"),
        ({"seed": 2**64}, "seed must be below 2"),
        ({"simulate_on": "gpu"}, "simulate_on must be workers or device, got 'gpu'"),
        ({"samples_per_epic": 3}, "no setting 'samples_per_epic'. Did you mean samples_per_epoch"),
        ({"batchsize": 3}, "no setting 'batchsize'. Did you mean batch_size"),
        ({"augment": {"crop": {"_target_": "fwi_lightning.data.augment.Shuffle"}}}, "does not exist"),
    ],
    ids=str,
)
def test_settings_out_of_range(setting, sentence):
    with pytest.raises(UserError, match=sentence):
        build({"_target_": "fwi_lightning.data.FreshDataModule"}, **setting)


def test_a_grid_without_room_for_a_map(cache, kaggle, survey):
    data = FreshDataModule(root=str(kaggle), survey=survey, samples_per_epoch=4)
    data.setup()
    with pytest.raises(UserError, match="at least 30 cells"):
        data.train_dataloader()
