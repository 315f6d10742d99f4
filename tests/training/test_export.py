"""What is handed on is the same model in a tenth of the space, and a card that says what it was made of."""

from __future__ import annotations

import json

import pytest
import torch
from omegaconf import OmegaConf

from fwi_lightning import load_model
from fwi_lightning.commands import export as command
from fwi_lightning.errors import UserError
from fwi_lightning.models import ResidualUNet
from fwi_lightning.survey import Survey
from fwi_lightning.training.export import export

SURVEY = Survey.surface(32, depth=30, shots=5, samples=200, sponge=30)
MODEL = {"_target_": "fwi_lightning.models.ResidualUNet", "width": 8, "levels": 2, "family_head": True}
FAMILIES = ["FlatVel_A", "Style_B"]


@pytest.fixture
def run(tmp_path):
    """The folder of a run of one model, as train.py leaves it but for the training."""
    torch.manual_seed(0)
    model = ResidualUNet(SURVEY, width=8, levels=2, family_head=True, families=FAMILIES)
    model.transform.scale.mul_(0.123456789)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    parameters = {"model": MODEL, "survey": SURVEY.to_dict(), "families": FAMILIES, "optimizer": {"lr": 1.0}}
    optimiser = {"state": {key: torch.zeros_like(value, dtype=torch.float64) for key, value in state.items()}}
    checkpoint = {"state_dict": state, "hyper_parameters": parameters, "optimizer_states": [optimiser]}
    torch.save(checkpoint | {"global_step": 1200, "epoch": 3}, folder / "checkpoints/best.ckpt")
    data = tmp_path / "maps"
    settings = {
        "model": MODEL,
        "data": {"batch_size": 16, "root": str(data)},
        "augment": {"flip": {}},
        "folds": 20,
        "seed": 7,
        "trainer": {"max_steps": 60000, "precision": "bf16-mixed"},
    }
    OmegaConf.save(OmegaConf.create(settings), folder / "config.yaml")
    facts = {"model": "shallow_unet", "processor": "2 cores, a Xeon", "accelerator": "none", "commit": "abc"}
    facts |= {"fwi-lightning": "0.1.0", "torch": "2.15.0", "command": "train.py ckpt=run"}
    facts |= {"begun by": "train.py experiment=starter data.root=maps"}
    (folder / "environment.json").write_text(json.dumps(facts))
    (folder / "split.csv").write_text("part,first_row,last_row,family,fold\na,0,49,FlatVel_A,0\nb,0,49,Style_B,1\n")
    head = "step,val/mae,val/mae/FlatVel_A,train/loss\n"
    (folder / "metrics.csv").write_text(head + "599,301.5,200.5,\n800,,,0.2\n1199,201.5,100.5,\n1799,99.5,1.5,\n")
    data.mkdir()
    drawn = {"families": FAMILIES, "samples_per_family": 90, "samples_per_file": 10, "seed": 9, "time_step": 0.004}
    drawn |= {"dtype": "float16", "survey": {"shot_columns": [0, 15, 16, 31]}}
    (data / "manifest.json").write_text(json.dumps({"settings": drawn, "parts": {}}))
    return folder


def configured(run, output, **changes):
    return OmegaConf.create({"ckpt": str(run), "output": str(output), "most_mb": 20} | changes)


def test_the_same_model_in_a_fraction_of_the_space(run, tmp_path):
    whole, small = run / "checkpoints/best.ckpt", tmp_path / "out/small.ckpt"
    export(whole, small)
    assert small.stat().st_size < whole.stat().st_size / 4
    before, after = load_model(whole), load_model(small)
    gathers = torch.randn(3, *SURVEY.gathers_shape)
    difference = (before.predict(gathers) - after.predict(gathers)).abs()
    assert 0 < difference.mean() < 2, "m/s: float16 weights are good to one part in 2048"
    assert torch.equal(before.transform.scale, after.transform.scale)
    assert after.families == tuple(FAMILIES)


def test_nothing_of_the_training_is_in_it(run, tmp_path):
    export(run / "checkpoints/best.ckpt", tmp_path / "small.ckpt")
    content = torch.load(tmp_path / "small.ckpt", weights_only=True)
    assert set(content) == {"hyper_parameters", "state_dict", "global_step", "epoch"}
    assert set(content["hyper_parameters"]) == {"model", "survey", "families"}
    kernels = [value for value in content["state_dict"].values() if value.ndim == 4]
    assert kernels
    assert all(value.dtype == torch.float16 for value in kernels)


def test_weights_that_have_grown_without_bound_are_refused(run, tmp_path):
    path = run / "checkpoints/best.ckpt"
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["model.net.head.0.weight"] = torch.full((1, 8, 3, 3), 1e6)
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="do not fit into float16"):
        export(path, tmp_path / "small.ckpt")
    assert not (tmp_path / "small.ckpt").exists()


def test_the_card_says_what_the_model_was_made_of(run, tmp_path, capsys):
    command.main(configured(run, tmp_path / "starter.ckpt"))
    card = (tmp_path / "starter.md").read_text()
    assert "1,200 of 16 samples (19,200 samples seen), of 60,000 planned" in card
    assert "100 simulated maps of 2 families, survey seed 9" in card
    assert "samples_per_family=50 samples_per_file=10 seed=9 time_step=0.004 dtype=float16" in card
    assert "'physics.shot_columns=[0,15,16,31]'" in card
    assert "uv run python train.py experiment=starter data.root=maps\nuv run python train.py ckpt=run  # after" in card
    assert "201.5" in card, "the validation of the exported step"
    assert "99.5" not in card, "a later one"
    assert "301.5" not in card, "an earlier one"
    assert "2 cores, a Xeon" in card
    assert "starter.md" in capsys.readouterr().out


def test_too_large(run, tmp_path):
    with pytest.raises(UserError, match=r"more than most_mb=0.001"):
        command.main(configured(run, tmp_path / "starter.ckpt", most_mb=0.001))
    assert not (tmp_path / "starter.ckpt").exists()


def test_a_checkpoint_outside_a_run(run, tmp_path):
    path = tmp_path / "alone.ckpt"
    (run / "checkpoints/best.ckpt").rename(path)
    with pytest.raises(UserError, match="lies in no run folder"):
        command.main(configured(path, tmp_path / "starter.ckpt"))
