"""Commands look at what the gathers tell of their making, and go on."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_lightning import load_model
from tests.integration.helpers import SMALL, command

SHOTS = [0, 17, 34, 52, 69]


@pytest.fixture(scope="module")
def doubled(survey, tmp_path_factory) -> Path:
    """The survey with all gathers twice as loud."""
    folder = tmp_path_factory.mktemp("doubled") / "data"
    shutil.copytree(survey, folder)
    for path in folder.rglob("*.npy"):
        if path.name.startswith(("data", "seis")):
            np.save(path, 2 * np.load(path))
    return folder


def rewritten(trained, path: Path, **settings) -> Path:
    """The checkpoint with other settings of the model; None takes one out, as if it were from before."""
    checkpoint = torch.load(trained.best)
    model = checkpoint["hyper_parameters"]["model"] | settings
    checkpoint["hyper_parameters"]["model"] = {key: value for key, value in model.items() if value is not None}
    torch.save(checkpoint, path)
    return path


def test_a_simulated_survey_gives_no_warning(trained):
    facts = json.loads((trained.folder / "environment.json").read_text())
    assert facts["differences from the survey"] == "nothing found in 8 samples"


@pytest.mark.parametrize("use", ["channel", "constraint"])
def test_train_warns_once_and_goes_on(doubled, tmp_path, capsys, use):
    words = ["data=openfwi", f"data.root={doubled}", *SMALL, "trainer.fast_dev_run=true"]
    words += [f"model.source_velocity={use}"]
    assert command("train", *words, f"hydra.run.dir={tmp_path}") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: the record was multiplied by about 2, or its cells are not of 10 m"]
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["differences from the survey"] == warnings[0].removeprefix("warning: ")
    assert "the record was multiplied by about 2" in (tmp_path / "report.html").read_text()


def test_predict_writes_what_is_known_and_flags_what_is_not(trained, survey, doubled, tmp_path, capsys):
    bound = rewritten(trained, tmp_path / "bound.ckpt", source_velocity="constraint")
    for name, folder in {"clean": survey, "doubled": doubled}.items():
        words = [f"ckpt={bound}", f"input={folder}", f"output={tmp_path / name}", "misfit=false", "pictures=1"]
        assert command("predict", *words) == 0
        warned = capsys.readouterr().err.count("warning: the record was multiplied by about 2")
        assert warned == (name == "doubled")
        with (tmp_path / name / "quality.csv").open(newline="") as file:
            flags = [row["flags"] for row in csv.DictReader(file)]
        assert all(("source velocity unavailable" in flag) == (name == "doubled") for flag in flags)
        assert ("multiplied by about 2" in (tmp_path / name / "report.html").read_text()) == (name == "doubled")
    truth = np.load(next(survey.rglob("model1.npy")))
    predicted = np.load(next((tmp_path / "clean").rglob("data1.npy")))
    assert np.abs(predicted - truth)[:, 0, 1, SHOTS].max() < 0.01
    without = load_model(trained.best).predict(np.load(next(doubled.rglob("data1.npy"))))
    np.testing.assert_allclose(np.load(next((tmp_path / "doubled").rglob("data1.npy"))), without, rtol=1e-5)


def test_a_checkpoint_from_before_the_setting_still_loads_and_goes_on(trained, tmp_path, capsys):
    old = rewritten(trained, tmp_path / "old.ckpt", source_velocity=None)
    gathers = np.random.default_rng(0).normal(size=(5, 400, 70)).astype(np.float32)
    np.testing.assert_array_equal(load_model(old).predict(gathers), load_model(trained.best).predict(gathers))
    words = [*trained.words, f"ckpt={old}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command("train", *words, "model.width=16") == 1
    assert "source_velocity" not in capsys.readouterr().err
    assert command("train", *words, "model.source_velocity=channel") == 1
    assert "model.source_velocity was 'none', now 'channel'" in capsys.readouterr().err
