"""A trial that reports to a study and is stopped by it."""

from types import SimpleNamespace

import optuna
import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.training.callbacks import Pruning


@pytest.fixture
def study(tmp_path):
    """Three complete trials with scores 10, 11 and 12 after each of three validations, and one that runs."""
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="s")
    for value in (10.0, 11.0, 12.0):
        trial = study.ask()
        for step in range(3):
            trial.report(value, step)
        study.tell(trial, value)
    study.ask()
    return study


def validate(callback: Pruning, score: float, name: str = "val/mae") -> None:
    """A validation, as the trainer would tell of it."""
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        callback_metrics={name: torch.tensor(score)},
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )
    callback.on_validation_end(trainer, None)


def pruning(tmp_path, **settings) -> Pruning:
    place = {"storage": f"sqlite:///{tmp_path}/study.db", "study_name": "s", "trial": 3}
    return Pruning("val/mae", **place, **({"startup_trials": 3, "warmup": 1} | settings))


def test_a_hopeless_trial_stops_after_the_warm_up_and_its_checkpoints_go(study, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").write_text("large")
    callback = pruning(tmp_path, checkpoints=str(checkpoints))
    validate(callback, 20.0)
    validate(callback, 5.0, name="val/other")
    assert checkpoints.is_dir()
    with pytest.raises(optuna.TrialPruned, match="val/mae was worse"):
        validate(callback, 19.0)
    assert not checkpoints.exists()
    assert checkpoints.parent.is_dir()
    assert study.trials[3].intermediate_values == {0: 20.0, 1: 19.0}


@pytest.mark.parametrize(
    ("settings", "score"), [({}, 10.5), ({"percentile": None}, 99.0), ({"startup_trials": 4}, 99.0)]
)
def test_other_trials_go_on(study, tmp_path, settings, score):
    callback = pruning(tmp_path, **settings)
    for _ in range(3):
        validate(callback, score)
    assert list(study.trials[3].intermediate_values.values()) == [score] * 3


def test_checkpoints_are_kept_when_asked(study, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    callback = pruning(tmp_path, warmup=0)
    with pytest.raises(optuna.TrialPruned):
        validate(callback, 20.0)
    assert (tmp_path / "checkpoints").is_dir()


def test_a_percentile_out_of_range(tmp_path):
    with pytest.raises(UserError, match=r"callbacks\.pruning\.percentile must be above 0 and at most 100.*got 0"):
        pruning(tmp_path, percentile=0)
