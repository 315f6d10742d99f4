"""The command `ensemble` as a user runs it, and predict.py with what it writes."""

import csv

import numpy as np
import pytest
import torch

from fwi_lightning import load_model
from tests.integration.helpers import SMALL, command

QUICK = ["folds=3", "trials=4", "family_trials=2", "steps=10", "batch_size=8"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(survey, tmp_path_factory):
    """Two models, two folds each."""
    folder = tmp_path_factory.mktemp("runs") / "all"
    words = ["-m", "data=openfwi", f"data.root={survey}", *SMALL, "loss=l1", "folds=2", "trainer.max_epochs=1"]
    words += ["model=shallow_unet,shallow_unet_small", "fold=0,1", f"hydra.sweep.dir={folder}"]
    assert command("train", *words) == 0
    return sorted(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def output(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "out"
    assert command("ensemble", f"members=[{','.join(map(str, runs))}]", f"output={folder}", *QUICK) == 0
    return folder


def test_members_are_scored_on_what_they_did_not_see(runs, output):
    held = {run: {(row["name"], row["index"]): row for row in read(run / "per_sample.csv")} for run in runs}
    names = {"shallow_unet": runs[:2], "shallow_unet_small": runs[2:]}
    table = {row["method"]: row for row in read(output / "scores.csv")}
    for name, folders in names.items():
        errors = [float(row["mae"]) for run in folders for row in held[run].values()]
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
    words = [f"members={runs[0]}", f"output={tmp_path}", *QUICK]
    assert command("ensemble", *words) == 0
    table = read(tmp_path / "scores.csv")
    assert [row["method"] for row in table] == ["shallow_unet", "static weights"]
    assert float(table[0]["mae"]) == pytest.approx(float(table[1]["mae"]))
    gathers = torch.randn(1, *load_model(runs[0] / "checkpoints/best.ckpt").survey.gathers_shape)
    single = load_model(runs[0] / "checkpoints/best.ckpt").predict(gathers)
    torch.testing.assert_close(load_model(tmp_path / "ensemble.ckpt").predict(gathers), single)


def test_members_that_do_not_belong_together(runs, trained, tmp_path, capsys):
    first, second, third, fourth = map(str, runs)
    for words, message in (
        (["members=[]"], "members=[] names no checkpoint"),
        ([f"members={tmp_path}/*"], "nothing matches"),
        ([f"members=[{first},{first}]"], "twice"),
        ([f"members=[{first},{fourth}]"], "nothing is left to compare them on"),
        (
            [f"members=[{first},{second},{third}]"],
            f"{second}/checkpoints/best.ckpt (shallow_unet, fold 1",
        ),
        ([f"members=[{first}]", "folds=2"], "folds must be a whole number of at least 3, got 2"),
        ([f"members=[{first}]", "samplers=[grid]"], "samplers must be a list of tpe and cmaes"),
        ([f"members=[{first}]", "physics=all"], "physics must be none or mean or members"),
    ):
        assert command("ensemble", *words, f"output={tmp_path / 'out'}", *[w for w in QUICK if "folds" not in w]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "checked before any work"
