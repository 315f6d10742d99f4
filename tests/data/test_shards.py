"""Shards hold what the files hold, anybody can read them, and a batch of them is a batch of the files."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile

import lightning
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from fwi_lightning.data import GathersDataModule, ShardsDataModule, find_parts
from fwi_lightning.data.dataset import GathersDataset
from fwi_lightning.data.shards.order import Windows, WindowSampler
from fwi_lightning.data.shards.writing import shard_settings, write_shards
from fwi_lightning.geology import FAMILIES
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey
from tests.data.test_resume import Module, Stop

QUICK = {"samples_per_shard": 7, "illumination": False}


def write(kaggle, survey, folder, share=None, **changes):
    parts = find_parts(kaggle, survey=survey)
    settings = shard_settings(parts, survey, **(QUICK | changes))
    return write_shards(parts, folder, settings, share, on_progress=lambda *_: None)


@pytest.fixture(scope="module")
def shards(kaggle, survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    assert write(kaggle, survey, folder) == ""
    return folder


def module(root, survey, **changes):
    settings = {"folds": 5, "fold": 1, "batch_size": 8, "wait": 0.0}
    data = ShardsDataModule(str(root), survey=survey.to_dict(), **(settings | changes))
    data.setup("fit")
    return data


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def indices(data, epoch=0):
    return [index for batch in batches(data, epoch) for index in batch["index"].tolist()]


def test_every_sample_is_bit_equal_to_its_file(shards, kaggle, survey):
    original = GathersDataset(find_parts(kaggle, survey=survey), None, FAMILIES)
    data = module(shards, survey)
    seen = []
    for dataset in (data.train_dataset, data.val_dataset):
        for place in range(len(dataset)):
            mine = dataset[place]
            other = original[mine["index"]]
            assert torch.equal(mine["gathers"], other["gathers"])
            assert torch.equal(mine["velocity"], other["velocity"])
            assert torch.equal(dataset.velocity(place), other["velocity"])
            assert (mine["family"], dataset.name(place)) == (other["family"], original.name(mine["index"]))
            seen.append(mine["index"])
    assert sorted(seen) == list(range(200))


def test_float16_rounds_gathers_by_one_part_in_2048_and_nothing_else(kaggle, survey, tmp_path):
    write(kaggle, survey, tmp_path, dtype="float16")
    original = GathersDataset(find_parts(kaggle, survey=survey), None, FAMILIES)
    for item in map(module(tmp_path, survey).val_dataset.__getitem__, range(40)):
        other = original[item["index"]]
        assert item["gathers"].dtype == torch.float32
        torch.testing.assert_close(item["gathers"], other["gathers"], rtol=2**-11, atol=2**-25)
        assert torch.equal(item["velocity"], other["velocity"])


def test_the_folds_are_those_of_the_files(shards, kaggle, survey):
    files = GathersDataModule(str(kaggle), survey, fold=1)
    files.setup()
    data = module(shards, survey)
    assert sorted(data.val_dataset.rows) == files.val_dataset.rows.tolist()
    assert sorted(data.train_dataset.rows) == files.train_dataset.rows.tolist()
    assert data.split_table() == files.split_table()
    assert data.family_counts == files.family_counts
    assert np.allclose(data.mean_velocity(), files.mean_velocity(), atol=1e-2)
    assert np.allclose(np.mean(list(data.training_velocities()), axis=0), files.mean_velocity(), atol=1e-2)


def test_tarfile_reads_them(shards, kaggle, survey):
    index = json.loads((shards / "index.json").read_text())
    parts = find_parts(kaggle, survey=survey)
    assert len(index["shards"]) == 5 * 6
    for shard in index["shards"]:
        content = (shards / shard["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
    with tarfile.open(shards / shard["name"]) as tar:
        assert tar.getnames()[:3] == [f"{shard['numbers'][0]:08d}.{s}" for s in ("gathers.npy", "velocity.npy", "json")]
        note = json.load(tar.extractfile(tar.getnames()[2]))
        part = next(part for part in parts if part.name == note["name"])
        gathers = np.load(io.BytesIO(tar.extractfile(tar.getnames()[0]).read()))
        assert np.array_equal(gathers, np.load(part.gathers)[note["row"]])
        assert (note["family"], note["number"], note["fold"]) == (part.family, shard["numbers"][0], 4)


def test_webdataset_reads_them(shards, kaggle, survey):
    webdataset = pytest.importorskip("webdataset")
    original = GathersDataset(find_parts(kaggle, survey=survey))
    urls = sorted(map(str, shards.glob("fold*/*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == 200
    for sample in samples[::17]:
        assert np.array_equal(sample["gathers.npy"], original[sample["json"]["number"]]["gathers"])
        assert np.array_equal(sample["velocity.npy"], original[sample["json"]["number"]]["velocity"])


def test_a_shard_is_a_mix_of_families(shards, survey):
    index = json.loads((shards / "index.json").read_text())
    for shard in index["shards"]:
        assert len({number // 20 for number in shard["numbers"]}) >= 3  # of ten families of twenty


class TestOrder:
    def test_an_epoch_has_every_training_sample_once(self, shards, survey):
        data = module(shards, survey)
        for epoch in (0, 3):
            assert sorted(indices(data, epoch)) == sorted(data.train_dataset.rows)

    def test_it_depends_on_seed_and_epoch_alone(self, shards, survey):
        settings = {"shuffle_mb": 0.02}  # windows of a few shards
        first = indices(module(shards, survey, **settings), 2)
        assert first == indices(module(shards, survey, **settings, num_workers=1), 2)
        assert first != indices(module(shards, survey, **settings), 3)
        assert first != indices(module(shards, survey, **settings, seed=1), 2)

    def test_ranks_share_one_order_of_uneven_shards(self):
        windows = Windows([3, 9, 1, 4, 2], width=2, seed=0)
        shares = [list(WindowSampler(windows, 3, rank)) for rank in range(3)]
        assert [len(share) for share in shares] == [7, 7, 7]  # 19 filled up to 21
        whole = [index for step in zip(*shares, strict=True) for _, index in step]
        assert whole[:19] == windows.order(0).tolist()
        assert sorted(whole[:19]) == list(range(19))

    def test_a_window_is_read_before_the_next(self):
        windows = Windows([5] * 8, width=3, seed=4)
        numbers = [windows.number(1, place) for place in windows.order(1).tolist()]
        assert numbers == sorted(numbers)
        assert np.bincount(numbers).tolist() == [15, 15, 10]
        assert windows.shards(1, 3) == []
        for place in (0, 39):
            near = windows.neighbours(1, place)
            assert place in near
            assert {windows.number(1, other) for other in near.tolist()} == {windows.number(1, place)}

    def test_a_resume_inside_an_epoch_goes_on_with_the_next_sample(self, shards, survey):
        data = module(shards, survey)
        loader = data.train_dataloader()
        loader.sampler.resume(1, 24)
        assert [i for batch in loader for i in batch["index"].tolist()] == indices(data, 1)[24:]


def take_part(rank, folder, survey, output):
    """One of two processes that must both be there at every step, as in a training."""
    dist.init_process_group("gloo", init_method=f"file://{output}/meeting", rank=rank, world_size=2)
    data = module(folder, survey, folds=3, batch_size=3, attempts=2)
    data._ranks = lambda: (2, rank)
    steps = []
    for batch in batches(data, 1):
        steps.append(batch["index"].tolist())
        dist.all_reduce(torch.ones(1))
    (output / f"{rank}.json").write_text(json.dumps(steps))
    dist.destroy_process_group()


def test_two_processes_take_the_same_number_of_steps(kaggle, survey, tmp_path):
    """Uneven shards, one of them gone: no step is without both. A hang ends after minutes."""
    write(kaggle, survey, tmp_path, folds=3, samples_per_shard=13)
    index = json.loads((tmp_path / "index.json").read_text())
    kept = [shard for shard in index["shards"] if shard["fold"] != 1]
    assert len({shard["samples"] for shard in kept}) > 1
    (tmp_path / kept[2]["name"]).unlink()
    context = multiprocessing.spawn(take_part, (tmp_path, survey, tmp_path), nprocs=2, join=False)
    try:
        assert context.join(timeout=200) or context.join(timeout=100)  # a call returns when one of them has ended
    finally:
        for process in context.processes:
            process.kill()
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    total = sum(shard["samples"] for shard in kept)
    assert len(one) == len(other) == math.ceil(math.ceil(total / 2) / 3)
    whole = {number for shard in kept for number in shard["numbers"]}
    assert {number for step in one + other for number in step} == whole - set(kept[2]["numbers"])


@pytest.mark.parametrize("stop", [("on_before_backward", 8), ("on_train_batch_end", 27), ("on_validation_end", 1)])
def test_a_run_that_fails_and_resumes_equals_one_that_did_not(shards, survey, tmp_path, stop):
    def fit(callbacks=(), ckpt=None):
        net = Module()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        data = ShardsDataModule(str(shards), survey=survey, batch_size=8, shuffle_mb=0.1)
        trainer.fit(net, datamodule=data, ckpt_path=ckpt)
        return net

    with pytest.raises(RuntimeError, match="stop"):
        fit([Stop(*stop, tmp_path / "stopped.ckpt")])
    whole, resumed = fit(), fit(ckpt=tmp_path / "stopped.ckpt")
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert torch.equal(resumed.weight, whole.weight)


LIT = Survey.surface(width=16, depth=14, shots=2, samples=60, sponge=12)


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    """Shards of 24 samples on a survey that can be simulated, and what they were made of."""
    root, folder, generator = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("lit"), np.random.default_rng(0)
    for family in ("FlatVel_A", "Style_A"):
        (root / family).mkdir()
        np.save(root / family / "data1.npy", generator.standard_normal((12, *LIT.gathers_shape)).astype(np.float32))
        np.save(root / family / "model1.npy", generator.uniform(1500, 3000, (12, 1, 14, 16)).astype(np.float32))
    assert write(root, LIT, folder, illumination=True, samples_per_shard=3) == ""
    return folder, root


def test_augmentations_draw_from_the_window(lit):
    blend = {
        "_target_": "fwi_lightning.data.augment.Physics",
        "blend": 1.0,
        "crop": 0,
        "warp": 0,
        "flip": 0,
        "scale": 0,
    }
    data = module(lit[0], LIT, augment={"physics": blend}, shuffle_mb=0.2)
    maps = {int(item["index"]): item["velocity"] for item in map(data.train_dataset.__getitem__, range(19))}
    source = data._source()
    for batch in batches(data, 1):
        for velocity, index in zip(batch["velocity"], batch["index"].tolist(), strict=True):
            place = data.train_dataset.rows.tolist().index(index)
            near = [maps[int(data.train_dataset.rows[other])] for other in source.neighbours(1, place)]
            change = (velocity - maps[index]).flatten()
            along = [torch.corrcoef(torch.stack([change, (other - maps[index]).flatten()]))[0, 1] for other in near]
            assert max(value for value in along if value.isfinite()) > 0.999
    one, other = batches(data, 1), batches(module(lit[0], LIT, augment={"physics": blend}, shuffle_mb=0.2), 1)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
    assert len(data.training_examples(4)["index"]) == 4


def test_illumination_comes_with_the_samples(lit, tmp_path):
    data = ShardsDataModule(str(lit[0]), survey=LIT, fold=1)
    data.needs_illumination = True
    data.prepare_data()
    data.setup()
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        expected = illuminate(batch["velocity"][:, 0], LIT)[1]
        torch.testing.assert_close(batch["illumination"][:, 0], expected, rtol=1e-5, atol=0)
