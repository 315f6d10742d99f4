"""simulate, shard and train as a user runs them: in parts, from a folder, in two processes, after a stop."""

import csv
import json

import pytest
import torch

from tests.integration.helpers import SMALL, SURVEY, command, script

SHARD = ["samples_per_shard=3", "physics.samples=400"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shards(survey, tmp_path_factory):
    """Twenty samples in ten shards of one to three."""
    folder = tmp_path_factory.mktemp("shards") / "data"
    assert command("shard", f"input={survey}", f"output={folder}", *SHARD) == 0
    return folder


def test_a_run_validates_on_the_samples_of_an_unsharded_one(shards, trained, tmp_path):
    words = ["data=shards", f"data.root={shards}", *SMALL, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command("train", *words) == 0
    mine, other = (
        {(row["name"], row["index"]) for row in read(folder / "per_sample.csv")}
        for folder in (tmp_path / "run", trained.folder)
    )
    assert mine == other
    assert read(tmp_path / "run" / "split.csv") == read(trained.folder / "split.csv")
    mean, same = (float(read(f / "per_family.csv")[-1]["mean_map_mae"]) for f in (tmp_path / "run", trained.folder))
    assert mean == pytest.approx(same, abs=0.01)


@pytest.mark.slow
def test_two_processes_have_the_same_number_of_steps(survey, tmp_path):
    """Training shards of uneven size, one of them gone, seen by two ranks: no hang, all steps.

    The quick test of it, without a training: tests/data/test_shards.py.
    """
    folder = tmp_path / "shards"
    words = ["folds=3", "samples_per_shard=5", "illumination=false", "physics.samples=400"]
    assert command("shard", f"input={survey}", f"output={folder}", *words) == 0
    index = json.loads((folder / "index.json").read_text())
    trained_on = [shard for shard in index["shards"] if shard["fold"] != 0]
    assert len({shard["samples"] for shard in trained_on}) > 1
    (folder / trained_on[0]["name"]).unlink()
    words = ["data=shards", f"data.root={folder}", "folds=3", *SMALL, "data.batch_size=3", "loss=l1"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    done = script("train.py", *words, *two, f"hydra.run.dir={tmp_path / 'run'}")  # its time limit is 300 s
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"others come in the place of its {trained_on[0]['samples']} samples" in done.stdout + done.stderr
    share = -(-sum(shard["samples"] for shard in trained_on) // 2)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == -(-share // 3)
    assert len(read(tmp_path / "run" / "per_sample.csv")) == index["samples"] - sum(s["samples"] for s in trained_on)


def test_parts_of_simulate_and_shard_are_the_whole(survey, shards, tmp_path, capfd):
    for part in (1, 0):
        assert command("simulate", f"output={tmp_path / 'survey'}", *SURVEY, f"part={part}", "parts=2") == 0
        said = capfd.readouterr().out
        assert ("missing: part 0 of 2" in said) == (part == 1)
    for path in survey.rglob("*.npy"):
        if not {".illumination", ".statistics"} & set(path.parts):
            assert (tmp_path / "survey" / path.relative_to(survey)).read_bytes() == path.read_bytes()
    one, other = (json.loads((f / "manifest.json").read_text())["parts"] for f in (survey, tmp_path / "survey"))
    assert one == other
    words = [f"input={tmp_path / 'survey'}", f"output={tmp_path / 'shards'}", *SHARD, "parts=3"]
    assert command("shard", *words, "part=0") == 0
    assert command("shard", *words, "check=true") == 1
    assert "is not complete, missing or damaged: part 1, 2 of 3" in capfd.readouterr().err
    assert command("shard", "-m", *words, "part=range(0,3)") == 0
    assert command("shard", *words, "check=true") == 0
    assert f"{tmp_path / 'shards'} is complete" in capfd.readouterr().out
    a, b = (json.loads((folder / "index.json").read_text()) for folder in (shards, tmp_path / "shards"))
    assert {key: a[key] for key in a if key != "shards"} == {key: b[key] for key in b if key != "shards"}
    assert [shard["numbers"] for shard in a["shards"]] == [shard["numbers"] for shard in b["shards"]]


@pytest.mark.slow
def test_parts_run_as_jobs(survey, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [f"input={survey}", f"output={tmp_path / 'shards'}", *SHARD, "parts=2"]
    jobs = [f"hydra.sweep.dir={tmp_path / 'jobs'}", "hydra/launcher=submitit_local"]
    assert command("shard", "-m", *words, "part=range(0,2)", *jobs) == 0
    assert command("shard", *words, "check=true") == 0
