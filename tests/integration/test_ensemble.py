"""The command `ensemble` as a user runs it, and predict.py with what it writes."""

import csv
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fwi_lightning import load_model
from fwi_lightning.config import build
from fwi_lightning.survey import Survey
from tests.integration.helpers import command
from tests.models.catalogue import make_module, settings, write_checkpoint

QUICK = ["folds=3", "trials=3", "family_trials=2", "steps=4", "batch_size=8"]
SURVEY = Survey(samples=400)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_run(folder, name, root, fold):
    """What `train.py model=NAME fold=FOLD` leaves, without the training."""
    words = [f"model={name}", "model.width=8", "physics.samples=400", "data=openfwi", f"data.root={root}"]
    config = settings(name, *words, f"fold={fold}", "folds=2")
    config.seed, config.callbacks, config.logger = 0, None, None
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=False)
    (folder / "environment.json").write_text(json.dumps({"model": name}))
    data = build(config.data, survey=SURVEY.to_dict(), fold=fold, folds=2, seed=0)
    data.setup()
    data.write_split(folder / "split.csv")
    module = make_module(name, "model.width=8", survey=SURVEY)
    with torch.no_grad():  # folds differ
        next(iter(module.model.net.parameters())).mul_(1 + fold)
    write_checkpoint(module, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def runs(survey, tmp_path_factory):
    """Two models, two folds each."""
    folder = tmp_path_factory.mktemp("runs")
    names = ("shallow_unet", "shallow_unet_small")
    return [write_run(folder / f"{name}_{fold}", name, survey, fold) for name in names for fold in (0, 1)]


def held_out_error(run, survey):
    """MAE of a run on the rows that its split.csv holds out, read by hand."""
    fold = OmegaConf.load(run / "config.yaml").fold
    model, errors = load_model(run / "checkpoints" / "best.ckpt"), []
    for row in read(run / "split.csv"):
        if int(row["fold"]) == fold:
            path = survey / f"{row['part']}.npy"
            rows = slice(int(row["first_row"]), int(row["last_row"]) + 1)
            truth = np.load(
                path.parent / path.name.replace("seis", "vel")
                if "seis" in path.name
                else path.parent.parent / "model" / path.name.replace("data", "model")
            )[rows]
            errors += np.abs(model.predict(np.load(path)[rows]) - truth).mean(axis=(1, 2, 3)).tolist()
    return errors


@pytest.fixture(scope="module")
def output(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "out"
    assert command("ensemble", f"members=[{','.join(map(str, runs))}]", f"output={folder}", *QUICK) == 0
    return folder


def test_members_are_scored_on_what_they_did_not_see(runs, output, survey):
    names = {"shallow_unet": runs[:2], "shallow_unet_small": runs[2:]}
    table = {row["method"]: row for row in read(output / "scores.csv")}
    for name, folders in names.items():
        errors = [error for run in folders for error in held_out_error(run, survey)]
        assert len(errors) == 20
        assert float(table[name]["mae"]) == pytest.approx(np.mean(errors), rel=1e-3)
    rows = read(output / "samples.csv")
    assert len(rows) == 20
    assert {row["nested_fold"] for row in rows} == {"0", "1", "2"}
    assert float(table["static weights"]["mae"]) == pytest.approx(
        np.mean([float(row["mae static weights"]) for row in rows])
    )
    assert sum(row["kept"] == "True" for row in table.values()) == 1
    weights = read(output / "weights.csv")[0]
    assert sum(float(weights[name]) for name in names) == pytest.approx(1, abs=1e-5)
    page = (output / "report.html").read_text()
    assert "neither a member was trained on nor anything here was fitted on" in page
    assert (output / "figures" / "ssim.png").is_file()


def test_predict_takes_it_as_a_model(runs, output, survey, tmp_path):
    source = sorted((survey / "CurveFault_B").glob("seis*.npy"))[0]
    words = [f"ckpt={output / 'ensemble.ckpt'}", f"input={source}", f"output={tmp_path}", "misfit=false"]
    assert command("predict", *words) == 0
    gathers = np.load(source)
    maps = [torch.from_numpy(load_model(run / "checkpoints" / "best.ckpt").predict(gathers)) for run in runs]
    written = np.load(tmp_path / "velocity" / source.name)
    low, high = (np.array(f(torch.stack(maps), dim=0)) for f in (torch.amin, torch.amax))
    assert (written >= low - 1e-2).all(), "a weighted mean lies among the members"
    assert (written <= high + 1e-2).all()
    row = read(tmp_path / "quality.csv")[0]
    assert {"expected_mae", "expected_ssim", "family"} <= set(row)


def test_a_second_start_predicts_nothing_again(runs, output, monkeypatch):
    place = "fwi_lightning.inversion.ensemble.out_of_fold.VelocityModel.predict_answer"
    monkeypatch.setattr(place, lambda *_: pytest.fail("predicted again"))
    before = read(output / "scores.csv")
    assert command("ensemble", f"members=[{','.join(map(str, runs))}]", f"output={output}", *QUICK) == 0
    assert read(output / "scores.csv") == before, "same seed, same numbers"


def test_one_member_works(runs, tmp_path):
    runs[0].with_suffix(".log").write_text("shallow_unet: what a training has printed, beside its folder\n")
    words = [f"members={runs[0]}*", f"output={tmp_path}", *QUICK]
    assert command("ensemble", *words) == 0
    table = read(tmp_path / "scores.csv")
    assert [row["method"] for row in table] == ["shallow_unet", "static weights"]
    assert float(table[0]["mae"]) == pytest.approx(float(table[1]["mae"]))
    gathers = torch.randn(1, *load_model(runs[0] / "checkpoints/best.ckpt").survey.gathers_shape)
    single = load_model(runs[0] / "checkpoints/best.ckpt").predict(gathers)
    torch.testing.assert_close(load_model(tmp_path / "ensemble.ckpt").predict(gathers), single)


def test_members_that_do_not_belong_together(runs, tmp_path, capsys):
    first, second, third, fourth = map(str, runs)
    (tmp_path / "run.log").write_text("simulating: 5000 samples to go\n")
    for words, message in (
        (["members=[]"], "members=[] names no checkpoint"),
        ([f"members={tmp_path}/*"], "no checkpoint or folder matches"),
        ([f"members={tmp_path}/run.log"], "is not a checkpoint that can be read"),
        ([f"members=[{first},{first}]"], "twice"),
        ([f"members=[{first},{fourth}]"], "nothing is left to compare them on"),
        (
            [f"members=[{first},{second},{third}]"],
            f"{second}/checkpoints/best.ckpt (shallow_unet, fold 1",
        ),
        ([f"members=[{first}]", "folds=2"], "folds must be a whole number of at least 3, got 2"),
        ([f"members=[{first}]", "samplers=[grid]"], "samplers must be a list of tpe and cmaes"),
        ([f"members=[{first}]", "simulated=all"], "simulated must be none or mean or members"),
    ):
        assert command("ensemble", *words, f"output={tmp_path / 'out'}", *[w for w in QUICK if "folds" not in w]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "checked before any work"
