"""How tests run a sweep of tests/sweep/objective.py, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from tests.sweep import objective

SCRIPT = Path(objective.__file__)
REPOSITORY = SCRIPT.parents[2]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep in a folder of its own: `run` it with words, `start` it in another process, open its `study`."""
    folder = tmp_path / "sweep"
    for name, value in {"SWEEP_DIR": str(folder), "HYDRA_FULL_ERROR": "1"}.items():
        monkeypatch.setenv(name, value)

    def line(words, settings) -> list[str]:
        typed = [f"hydra.sweeper.{name}={value}" for name, value in settings.items()]
        return [str(SCRIPT), *words, *typed]

    def run(*words: str, **settings) -> None:
        monkeypatch.setattr(sys, "argv", line(words, settings))
        objective.main()

    def start(*words: str, **settings) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *line(words, settings)], cwd=tmp_path, env=environment, **pipes)

    def study(name: str = "default", storage: str = f"sqlite:///{folder}/study.db") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=storage)

    def states() -> list[str]:
        return [trial.state.name for trial in study().trials]

    return SimpleNamespace(folder=folder, run=run, start=start, study=study, states=states)


def distinct(trials) -> int:
    """How many different points trials have."""
    return len({tuple(sorted(trial.params.items())) for trial in trials})
