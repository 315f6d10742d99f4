"""`python -m fwi_lightning pretrain`, and train.py that begins with what it left."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import default_collate

from fwi_lightning import load_model
from fwi_lightning.data import GathersDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey
from fwi_lightning.training.pretraining import PretrainingModule
from tests.integration.helpers import SMALL, command, script

MODEL = "model=specproj_unet"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pretrained(survey, tmp_path_factory) -> SimpleNamespace:
    """Two epochs of hidden traces in mixed precision, in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    words = ["data=openfwi", f"data.root={survey}", *SMALL, MODEL, "scheduler=none"]
    settings = [*words, "trainer.max_epochs=2", "trainer.precision=bf16-mixed", f"output={home / 'pretrained'}"]
    assert command("pretrain", *settings, f"hydra.run.dir={home / 'run'}") == 0
    file = home / "pretrained" / "all" / "specproj_unet.ckpt"
    return SimpleNamespace(home=home, folder=home / "run", words=words, settings=settings, file=file)


def test_a_pretraining_leaves_a_run_and_a_file_of_its_encoder(pretrained):
    names = {path.name for path in pretrained.folder.iterdir()}
    assert names == {"config.yaml", "environment.json", "metrics.csv", "split.csv", "checkpoints", "figures"}
    assert (pretrained.folder / "figures" / "reconstruction.png").stat().st_size > 10_000
    rows = read(pretrained.folder / "metrics.csv")
    scores = [float(row["val/reconstruction"]) for row in rows if row["val/reconstruction"]]
    assert len(scores) == 2
    assert scores[1] < scores[0]
    slim = torch.load(pretrained.file, weights_only=True)
    whole = torch.load(pretrained.folder / "checkpoints" / "last.ckpt")
    assert slim["hyper_parameters"]["families"] == ["FlatVel_A", "CurveFault_B"]
    assert slim["hyper_parameters"]["task"] == "masked_traces"
    assert {key.split(".")[1] for key in slim["state_dict"]} == {"transform", "projector", "net"}
    assert not [key for key in slim["state_dict"] if key.startswith(("model.net.up", "model.net.head"))]
    assert all(torch.equal(value, whole["state_dict"][key]) for key, value in slim["state_dict"].items())


@pytest.mark.parametrize("kind", ["family", "slim", "last"])
def test_train_begins_with_it_and_says_so(pretrained, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(pretrained.home)
    last = pretrained.folder / "checkpoints" / "last.ckpt"
    init = {"family": "all", "slim": pretrained.file, "last": last}[kind]
    # A rate of nothing: what training was begun with is what it ends with.
    words = [*pretrained.words, f"init={init}", "optimizer.lr=0", "trainer.max_epochs=1", "loss=l1"]
    words += ["optimizer.weight_decay=0", f"hydra.run.dir={tmp_path}"]
    assert command("train", *words) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("init: "))
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    taken = torch.load(pretrained.file)["state_dict"]
    parameters = {key for key in taken if "running_" not in key and "num_batches" not in key} - {
        "model.transform.scale"
    }
    assert len(parameters) > 20
    assert all(torch.equal(state[key], taken[key]) for key in parameters)
    file = init if kind != "family" else Path("pretrained/all/specproj_unet.ckpt")
    assert line.startswith(f"init: {len(taken) - 1} of {len(state) - 1} tensors from {file}; new: net.up (")
    assert json.loads((tmp_path / "environment.json").read_text())["init"] == line.removeprefix("init: ")
    assert (tmp_path / "report.html").is_file()


def test_a_projector_goes_into_another_model(pretrained, tmp_path, capsys):
    words = [word for word in pretrained.words if word != MODEL]
    words += [
        "model=unet",
        "model.width=16",
        "model.projector=spectral",
        "loss=l1",
        f"init={pretrained.file}",
        "trainer.fast_dev_run=true",
    ]
    assert command("train", *words, f"hydra.run.dir={tmp_path}") == 0
    assert "init: 8 of " in capsys.readouterr().out


def test_going_on_equals_an_uninterrupted_pretraining(pretrained, tmp_path):
    words = [*pretrained.words, "trainer.precision=bf16-mixed", "trainer.max_epochs=3", f"output={tmp_path / 'p'}"]
    assert command("pretrain", *words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    last = pretrained.folder / "checkpoints" / "last.ckpt"
    assert command("pretrain", *words, f"ckpt={last}", f"hydra.run.dir={tmp_path / 'resumed'}") == 0
    states = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "resumed")]
    assert [state["global_step"] for state in states] == [12, 12]
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(states[1]["state_dict"][key], value), key


def test_one_family_with_labels_gets_a_file_of_its_own_that_predicts(pretrained, survey, tmp_path):
    words = [*pretrained.words, f"data.root={survey / 'FlatVel_A'}", "task=supervised", "trainer.max_epochs=1"]
    assert command("pretrain", *words, f"output={tmp_path / 'p'}", f"hydra.run.dir={tmp_path / 'run'}") == 0
    file = tmp_path / "p" / "FlatVel_A" / "specproj_unet.ckpt"
    gathers = torch.randn(1, 5, 400, 70)
    trained = load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert torch.equal(load_model(file).predict(gathers), trained.predict(gathers))
    assert "val/mae" in read(tmp_path / "run" / "metrics.csv")[0]


def test_hidden_parts_are_no_maps(pretrained):
    with pytest.raises(UserError, match=r"is of a pretraining and makes no maps: train a model from it with init="):
        load_model(pretrained.file)


def test_two_processes_share_the_work(pretrained, survey, tmp_path):
    words = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", "task=masked_spectra"]
    words += ["trainer.max_epochs=1", f"output={tmp_path / 'p'}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = script("-m", "fwi_lightning", "pretrain", *pretrained.words, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("samples train") == 1
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2  # 16 samples, 4 a process and step
    module = PretrainingModule(**checkpoint["hyper_parameters"])
    before = module.model.projector.atoms.clone()
    module.load_state_dict(checkpoint["state_dict"])
    slim = torch.load(tmp_path / "p" / "all" / "specproj_unet.ckpt")["state_dict"]
    assert torch.equal(slim["model.projector.atoms"], module.model.projector.atoms)
    assert not torch.equal(slim["model.projector.atoms"], before)
    data = GathersDataModule(survey, survey=Survey(samples=400))
    data.setup()
    with torch.no_grad():
        alone = module.eval().fill(default_collate(list(data.val_dataset))).error
    rows = read(tmp_path / "run" / "metrics.csv")
    together = [float(row["val/reconstruction"]) for row in rows if row["val/reconstruction"]]
    assert together == pytest.approx([float(alone.mean())], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("train", ["init=nowhere/weights.ckpt"], "init=nowhere/weights.ckpt is not a file"),
        ("train", ["init=Style_A"], "init=Style_A means pretrained/Style_A/specproj_unet.ckpt, which does not exist"),
        ("train", ["init=all", "ckpt=last.ckpt"], "init=all begins a run and ckpt=last.ckpt goes on with one"),
        ("train", ["init={file}", "model=inversionnet"], "this model 400: use the same physics.samples"),
        ("train", ["ckpt={last}"], "is of task=masked_traces, this run of supervised: begin a run from its weights"),
        ("pretrain", ["ckpt={last}", "share=0.3"], "share was 0.5, now 0.3"),
        ("pretrain", ["ckpt={last}", "task=masked_spectra"], "is of task=masked_traces, this run of masked_spectra"),
        (
            "pretrain",
            ["task=masked_shots"],
            "task must be masked_traces, masked_spectra or supervised, got 'masked_sho",
        ),
        ("pretrain", ["share=1.5"], "share must lie between 0 (nothing is hidden) and 1 (all is), got 1.5"),
        ("pretrain", ["output=/proc/weights"], "/proc/weights cannot be written"),
    ],
)
def test_a_mistake_gets_one_sentence(pretrained, tmp_path, capsys, name, words, message):
    places = {"file": pretrained.file, "last": pretrained.folder / "checkpoints" / "last.ckpt"}
    words = [word.format(**places) for word in words]
    small = [
        word for word in pretrained.words if not (word.startswith("model.width") and "model=inversionnet" in words)
    ]
    output = [f"output={tmp_path / 'p'}"] if name == "pretrain" else []
    assert command(name, *small, *output, f"hydra.run.dir={tmp_path / 'run'}", *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.ckpt"))
