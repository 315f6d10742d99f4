"""train.py in a sweep."""

import csv
import re
from pathlib import Path

import optuna
import pytest

from tests.integration.helpers import SMALL, command


def test_a_sweep_trains_its_trials_and_resumes(survey, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sweep=optuna", "data=openfwi", f"data.root={survey}", "data.batch_size=4", "physics.samples=400"]
    words += ["loss=l1", "trainer.max_epochs=1", "model.width=4,8", "hydra.sweeper.space.optimizer.weight_decay=null"]
    assert command("train", *words, "hydra.sweeper.n_trials=1") == 0
    assert command("train", "-m", *words, "hydra.sweeper.n_trials=2") == 0
    folder = Path("sweeps/default")
    trials = optuna.load_study(study_name="default", storage=f"sqlite:///{folder}/study.db").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    for trial in trials:
        assert set(trial.params) == {"optimizer.lr", "model.width"}
        run = folder / f"trial_{trial.number}"
        with (run / "metrics.csv").open(newline="") as file:
            logged = [float(row["val/mae"]) for row in csv.DictReader(file) if row["val/mae"]]
        assert trial.value == min(logged)
        assert trial.intermediate_values[0] == pytest.approx(logged[0])
        assert (run / "report.html").is_file()
        assert f"trial: {trial.number}" in (run / "config.yaml").read_text()
        assert re.search(rf"lr: {trial.params['optimizer.lr']}\b", (run / "config.yaml").read_text())
    assert (folder / "report.html").is_file()
    capsys.readouterr()

    assert command("train", *words, "hydra.sweeper.n_trials=3", "hydra.sweeper.space.optimizer.lr.high=0.1") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: the study 'default' was begun with another search: optimizer.lr was 0.0005 to 0.01")


def test_mistakes_of_a_sweep_get_one_sentence(survey, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sweep=optuna", "data=openfwi", f"data.root={survey}", *SMALL]
    for word, message in {
        "+hydra.sweeper.space.optimizer.lrr=[1,2]": "there is no setting 'optimizer.lrr'. Did you mean optimizer.lr?",
        "hydra.sweeper.n_trials=many": "hydra.sweeper.n_trials",
        "hydra.sweeper.n_trails=3": "n_trails",
    }.items():
        assert command("train", *words, word) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not list(tmp_path.rglob("trial_*"))
