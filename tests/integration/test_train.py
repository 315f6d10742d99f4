"""train.py as a user runs it."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fwi_lightning import load_model
from fwi_lightning.commands.fitting import fit
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey
from tests.integration.helpers import REPOSITORY, SMALL, command, script


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def best_of(folder: Path) -> float:
    """The score that a run remembers as its best."""
    states = torch.load(folder / "checkpoints" / "last.ckpt")["callbacks"]
    return next(float(state["best_model_score"]) for key, state in states.items() if "val/mae" in key)


def test_a_run_folder_holds_all_that_was_promised(trained):
    expected = {"config.yaml", "metrics.csv", "per_family.csv", "per_sample.csv", "report.html", "split.csv"}
    assert expected <= {path.name for path in trained.folder.iterdir()}
    assert {path.name for path in (trained.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((trained.folder / "figures").glob("*.png"))
    facts = json.loads((trained.folder / "environment.json").read_text())
    assert torch.__version__.startswith(facts["torch"])
    assert facts["seed"] == 0


def test_metrics_have_the_promised_names(trained):
    columns = set(read(trained.folder / "metrics.csv")[0])
    assert {"step", "epoch", "train/loss", "val/mae", "val/rmse", "val/ssim", "val/boundary_iou"} <= columns
    assert {"val/mae/FlatVel_A", "val/mae/CurveFault_B"} <= columns


def test_tables_agree_with_a_calculation_from_the_checkpoint_and_the_files(trained, survey):
    model = load_model(trained.best)
    rows = read(trained.folder / "per_sample.csv")
    assert len(rows) == 4  # one fold of five over two families of ten
    for row in rows:
        gathers = np.load(survey / f"{row['name']}.npy")[int(row["index"])]
        name = row["name"].replace("data", "model").replace("seis", "vel")
        truth = np.load(survey / f"{name}.npy")[int(row["index"])]
        error = np.abs(model.predict(gathers) - truth).mean()
        assert float(row["mae"]) == pytest.approx(error, rel=1e-4)
    overall = read(trained.folder / "per_family.csv")[-1]
    assert overall["family"] == "all"
    assert float(overall["mae"]) == pytest.approx(np.mean([float(row["mae"]) for row in rows]))
    logged = [float(row["val/mae"]) for row in read(trained.folder / "metrics.csv") if row["val/mae"]]
    assert min(logged) == pytest.approx(float(overall["mae"]), rel=1e-5)


def test_mean_map_is_that_of_the_training_folds(trained, survey):
    held = {(row["part"], int(row["first_row"])) for row in read(trained.folder / "split.csv") if row["fold"] == "0"}
    kept, tested = [], []
    for path in sorted(survey.rglob("*.npy")):
        inside = path.relative_to(survey).with_suffix("").as_posix()
        if path.name.startswith(("model", "vel")) and path.parent.name != ".illumination":
            name = inside.replace("model", "data").replace("vel", "seis")
            (tested if (name, 0) in held else kept).append(np.load(path).astype(np.float64))
    assert len(kept) == 8
    expected = np.abs(np.concatenate(tested) - np.concatenate(kept).mean(axis=0)).mean()
    overall = read(trained.folder / "per_family.csv")[-1]
    assert float(overall["mean_map_mae"]) == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_the_input_is_that_of_all_training_samples(trained, survey):
    held = {(row["part"], int(row["first_row"])) for row in read(trained.folder / "split.csv") if row["fold"] == "0"}
    gathers = np.concatenate(
        [
            np.load(survey / f"{row['part']}.npy", mmap_mode="r")[int(row["first_row"]) : int(row["last_row"]) + 1]
            for row in read(trained.folder / "split.csv")
            if (row["part"], int(row["first_row"])) not in held
        ]
    )
    rms = np.sqrt((np.log1p(np.abs(gathers[:, :, ::4].astype(np.float64))) ** 2).mean(axis=(0, 1, 3)))
    scale = torch.load(trained.best)["state_dict"]["model.transform.scale"]
    np.testing.assert_allclose(scale[:, 0].numpy(), np.maximum(rms, rms.max() / 10), rtol=1e-5)


def test_the_same_command_gives_the_same_numbers(trained, tmp_path):
    assert command("train", *trained.words, f"hydra.run.dir={tmp_path / 'again'}") == 0
    first, again = (torch.load(f / "checkpoints/last.ckpt") for f in (trained.folder, tmp_path / "again"))
    assert all(torch.equal(first["state_dict"][key], again["state_dict"][key]) for key in first["state_dict"])
    assert read(trained.folder / "per_sample.csv") == read(tmp_path / "again" / "per_sample.csv")


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_stop_and_resume_equal_an_uninterrupted_run(name, survey, tmp_path):
    words = ["data=openfwi", f"data.root={survey}", *SMALL, "data.batch_size=2", "trainer.max_epochs=8"]
    run = [sys.executable, str(REPOSITORY / "train.py"), *words, f"hydra.run.dir={tmp_path / 'stopped'}"]
    process = subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 2/"):
            time.sleep(0.2)  # somewhere inside a later epoch
            process.send_signal(signal.Signals[name])
            lines += process.stdout.readlines()
            break
    assert process.wait(timeout=60) == 130, "".join(lines)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert lines[-1] == f"stopped; to go on: python train.py ckpt={tmp_path / 'stopped'}\n"
    stopped = torch.load(last)["global_step"]
    assert 16 <= stopped < 64
    scored = best_of(tmp_path / "stopped")
    moved = (tmp_path / "stopped").rename(tmp_path / "moved")
    assert command("train", f"ckpt={moved}") == 0, "a run goes on from its folder alone, wherever that lies"
    assert best_of(moved) <= scored, "a folder that was moved forgot its best score"
    moved.rename(tmp_path / "stopped")
    assert command("train", *words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    resumed, whole = (torch.load(tmp_path / run / "checkpoints/last.ckpt") for run in ("stopped", "whole"))
    assert resumed["global_step"] == whole["global_step"] == 64
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    steps = [row["step"] for row in read(tmp_path / "stopped" / "metrics.csv") if row["train/loss"]]
    assert len(steps) == len(set(steps)), "steps are logged twice"
    assert read(tmp_path / "stopped" / "per_family.csv") == read(tmp_path / "whole" / "per_family.csv")


def test_multirun_makes_a_folder_for_each_choice(survey, tmp_path):
    words = ["-m", "data=openfwi", f"data.root={survey}", *SMALL, "fold=0,1", "trainer.max_epochs=1"]
    assert command("train", *words, f"hydra.sweep.dir={tmp_path}") == 0
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) == 2
    assert all((tmp_path / folder / "report.html").is_file() for folder in folders)
    splits = [read(tmp_path / folder / "split.csv") for folder in folders]
    assert splits[0] == splits[1]


def test_load_model_rebuilds_from_the_checkpoint_alone(trained):
    model = load_model(trained.best)
    assert model.survey == Survey(samples=400)
    gathers = np.random.default_rng(0).normal(size=(3, 5, 400, 70)).astype(np.float32)
    maps = model.predict(gathers)
    assert maps.shape == (3, 1, 70, 70)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(model.predict(gathers[1]), maps[1], rtol=1e-5)
    assert isinstance(model.predict(torch.from_numpy(gathers)), torch.Tensor)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.root=nowhere"], "nowhere does not exist"),
        (["fold=5"], "fold"),
        (["folds=11"], "folds"),
        (["modle=shallow_unet"], "there is no setting 'modle'. Did you mean model?"),
        (["model=shalow_unet"], "Available options in 'model':"),
        (["model.widht=3"], "there is no setting 'model.widht'. Did you mean model.width?"),
        (["trainer.max_epoch=3"], "Did you mean trainer.max_epochs?"),
        (["ckpt=nowhere.ckpt"], "nowhere.ckpt is not a file"),
        (["data.batch_size=0"], "batch_size must be a whole number of at least 1, got 0"),
        (["seed=abc"], "seed must be a whole number of at least 0, got 'abc'"),
        (["folds=1"], "folds must be a whole number of at least 2, got 1"),
        (["optimizer.lr=-1"], "optimizer.lr must be a number of at least 0, got -1"),
        (["trainer.precision=17"], "trainer: "),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "trains in float16, which needs a GPU"),
        (["trainer.precision=bf16-true"], "would round the true maps to 2 or 16 m/s: use bf16-mixed"),
        (["model.output=relu"], "model.output must be linear, sigmoid or tanh, got 'relu'"),
        (["model.amplitudes=db"], "model.amplitudes must be log1p, official, trace or raw, got 'db'"),
        (["model.projector=spectral", "model.spectral.count=99"], "model.spectral.count=99 atoms"),
        (["model.levels=9"], "model.levels=9 with model.coarseness=2 leaves less than a cell"),
        (["model.time_step=0.05"], "model.time_step=0.05 s is too long for a wavelet that ends at 45 Hz"),
        (["model.width=x"], "width of ResidualUNet must be a whole number, got 'x'"),
        (["model.uncertainty_head=5"], "uncertainty_head of ResidualUNet must be true or false, got 5"),
        (["optimizer.betas=0.9"], "betas of AdamW must be a list (2 times a number), got 0.9"),
        (["trainer.max_epochs=many"], "trainer.max_epochs must be a whole number of at least -1, got 'many'"),
        (["trainer.accumulate_grad_batches=0"], "accumulate_grad_batches must be a whole number of at least 1, got 0"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be a number above 0, or null, got -1"),
        (["+trainer.overfit_batches=2"], "debug=overfit repeats the same few samples"),
        (["callbacks.best.mode=least"], "callbacks.best.mode must be min or max, got 'least'"),
        (["heads.inverse=-0.1"], "heads.inverse must be a number of at least 0, got -0.1"),
        (["data.training_samples=0"], "training_samples must be a whole number of at least 1, or null for all, got 0"),
        (["=3"], "'=3' has no key: settings are written key=value"),
        (["physics.shot_columns=[80]"], "shot_columns must be 0 to 69"),
        (["hydra.run.dir=/proc/run"], "cannot be written"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(survey, tmp_path, capsys, words, message):
    place = f"hydra.run.dir={tmp_path / 'run'}"
    assert command("train", "data=openfwi", f"data.root={survey}", *SMALL, place, *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_a_gpu_that_is_not_there_is_named_before_any_work(tmp_path, capsys):
    place = ["data.root=nowhere", "data=openfwi", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command("train", *place, "trainer=gpu") == 1
    assert "trainer.accelerator=gpu: this machine has no GPU that torch can use" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_resume_with_other_settings_names_the_difference(trained, capsys):
    last = trained.folder / "checkpoints" / "last.ckpt"
    assert command("train", *trained.words, "model.width=16", f"ckpt={last}") == 1
    assert "model.width was 8, now 16" in capsys.readouterr().err


def test_a_folder_that_goes_on_keeps_its_settings(trained, tmp_path, capsys):
    assert command("train", "model=inversionnet", f"ckpt={trained.folder}") == 1
    assert "goes on with the settings of its run: leave out model=inversionnet" in capsys.readouterr().err
    assert command("train", f"ckpt={tmp_path}") == 1
    assert "is no run that can go on: it has no config.yaml" in capsys.readouterr().err


def test_a_monitor_that_never_comes_is_named_with_those_that_do(trained, tmp_path, capsys):
    words = [*trained.words, f"hydra.run.dir={tmp_path / 'run'}"]
    assert command("train", *words, "callbacks.early_stopping.monitor=val/iou") == 1
    assert "callbacks.early_stopping.monitor=val/iou is never logged: choose one of val/mae" in capsys.readouterr().err
    assert command("train", *words, "trainer.limit_val_batches=0") == 1
    assert "leave it out with '~callbacks.best'" in capsys.readouterr().err


def test_data_that_fails_on_the_way_says_how_to_go_on(tmp_path):
    class Trainer:
        def fit(self, *_, **__):
            raise UserError("data7.npy does not exist: put the file back.")

    run = SimpleNamespace(folder=tmp_path, data=None, config=OmegaConf.create({"ckpt": None}))
    with pytest.raises(UserError, match=r"put the file back\.$"):
        fit(Trainer(), None, run, "python train.py")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_text("")
    sentence = f"put the file back. After that, to go on from checkpoints/last.ckpt: python train.py ckpt={tmp_path}"
    with pytest.raises(UserError, match=re.escape(sentence) + "$"):
        fit(Trainer(), None, run, "python train.py")


def test_a_used_run_folder_is_not_overwritten(trained, capsys):
    assert command("train", *trained.words, f"hydra.run.dir={trained.folder}") == 1
    assert "already holds a run" in capsys.readouterr().err


def test_unknown_command_lists_those_that_exist():
    done = script("-m", "fwi_lightning", "simulat")
    assert done.returncode == 1
    assert "there is no command 'simulat'" in done.stderr
    assert "simulate" in script("-m", "fwi_lightning").stdout


def test_a_schedule_cannot_be_made_longer(trained, capsys):
    last = trained.folder / "checkpoints" / "last.ckpt"
    assert command("train", *trained.words, "trainer.max_epochs=5", f"ckpt={last}") == 1
    assert "schedule ends after 8 steps, this run has 20" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["l1_pde", "l1_waveform"])
def test_losses_of_the_wave_equation_train_log_their_parts_and_take_over_a_run(trained, survey, tmp_path, loss):
    words = [*trained.words, "scheduler=none", f"loss={loss}", "trainer.log_every_n_steps=1"]
    words += ["loss.waveform.warm_up=0"] if loss == "l1_waveform" else []
    assert command("train", *words, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}") == 0
    rows = read(tmp_path / "run" / "metrics.csv")
    name = loss.removeprefix("l1_")
    parts = [float(row[f"train/{name}"]) for row in rows if row[f"train/{name}"]]
    assert min(parts) > 0
    assert {float(row[f"train/{name}_skipped"]) for row in rows if row[f"train/{name}_skipped"]} == {0}
    residuals = [float(row["val/pde_residual"]) for row in rows if row.get("val/pde_residual")]
    assert len(residuals) == (1 if loss == "l1_pde" else 0)
    assert bool(list(survey.rglob(".illumination/*.npy"))) or loss == "l1_waveform"
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert command("train", *trained.words, "scheduler=none", "loss=l1", f"ckpt={last}") == 0
    assert command("train", *words, "trainer.max_epochs=3", f"ckpt={last}") == 0
    assert read(tmp_path / "run" / "metrics.csv")[-1]["epoch"] == "3"
