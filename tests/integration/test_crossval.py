"""Out-of-fold predictions, against the runs' own tables and models."""

import csv

import numpy as np
import pytest

from fwi_lightning import load_model
from tests.integration.helpers import SMALL, command


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "all"
    words = ["-m", "data=openfwi", f"data.root={survey}", *SMALL, "loss=l1", "folds=2", "trainer.max_epochs=1"]
    assert command("train", *words, "fold=0,1", f"hydra.sweep.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def output(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crossval")
    assert command("crossval", f"runs={runs}", f"output={folder}") == 0
    return folder


def test_every_sample_is_predicted_by_the_model_that_did_not_see_it(runs, output, survey):
    rows = read(output / "samples.csv")
    velocity = np.load(output / "velocity.npy")
    assert len(rows) == len(velocity) == 20
    assert [int(row["number"]) for row in rows] == list(range(20))
    folders = sorted(path for path in runs.iterdir() if path.is_dir())
    models = [load_model(folder / "checkpoints" / "best.ckpt") for folder in folders]
    held = [{(row["name"], row["index"]): row for row in read(folder / "per_sample.csv")} for folder in folders]
    for row, maps in zip(rows, velocity, strict=True):
        fold = int(row["fold"])
        mine, others = held[fold], held[1 - fold]
        key = (row["name"], row["index"])
        assert key in mine
        assert key not in others
        gathers = np.load(survey / f"{row['name']}.npy")[int(row["index"])]
        np.testing.assert_allclose(models[fold].predict(gathers), maps, rtol=1e-4)
        for score in ("mae", "ssim", "boundary_iou"):
            assert float(row[score]) == pytest.approx(float(mine[key][score]), rel=1e-4)


def test_the_spread_is_that_of_the_runs_own_scores(runs, output):
    tables = [read(folder / "per_family.csv") for folder in sorted(runs.iterdir()) if folder.is_dir()]
    for row in read(output / "per_family.csv"):
        maes = [float(line["mae"]) for table in tables for line in table if line["family"] == row["family"]]
        assert float(row["mae"]) == pytest.approx(np.mean(maes), rel=1e-4)
        assert float(row["mae_spread"]) == pytest.approx(abs(maes[0] - maes[1]) / np.sqrt(2), rel=1e-3, abs=1e-3)
    assert (output / "figures" / "folds.png").is_file()
    assert "FlatVel_A" in (output / "report.html").read_text()


def test_a_second_start_predicts_nothing_again(runs, output, monkeypatch):
    monkeypatch.setattr("fwi_lightning.commands.crossval.load_model", lambda *_: pytest.fail("predicted again"))
    before = np.load(output / "velocity.npy")
    assert command("crossval", f"runs={runs}", f"output={output}") == 0
    np.testing.assert_array_equal(np.load(output / "velocity.npy"), before)


def test_runs_that_do_not_belong_together(runs, trained, tmp_path, capsys):
    first, second = (str(path) for path in sorted(runs.iterdir()) if path.is_dir())
    for words, message in (
        (f"runs={tmp_path}", "holds no run folders"),
        (f"runs=['{tmp_path}']", "is no finished run: it has no config.yaml"),
        (f"runs=['{first}']", "no run held out fold 1 of 2: train with fold=1 too"),
        (f"runs=['{first}','{first}']", "both held out fold 0"),
        (f"runs=['{second}','{trained.folder}']", "differ in folds"),
    ):
        assert command("crossval", words, f"output={tmp_path / 'out'}") == 1
        assert message in capsys.readouterr().err
