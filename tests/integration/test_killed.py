"""A run that was killed goes on as if nothing had happened: kill -9, power cut, a cluster's time limit."""

import csv
import random
import subprocess
import sys
import time

import pytest
import torch

from tests.integration.helpers import REPOSITORY, command

SETTINGS = [
    "physics.samples=400",
    "data.batch_size=2",
    "loss=l1",
    "trainer.max_epochs=6",
    "trainer.log_every_n_steps=1",
]
SETTINGS += [
    "model=convnext",
    "model.backbone=convnext_atto",
    "model.drop_path=0.5",
    "trainer.accumulate_grad_batches=2",
]
SETTINGS += ["augment=[flip,corruption]", "scheduler=one_cycle", "callbacks.ema.decay=0.9"]
SAVING = ["+callbacks.last.every_n_train_steps=1", "callbacks.last.save_on_train_epoch_end=false"]
"""A checkpoint after each step: what is killed goes on inside an epoch."""


def kill_after(line: str, words: list[str], seconds: float) -> list[str]:
    """Start a training, kill it some time after it prints a line; what it printed."""
    process = subprocess.Popen(
        [sys.executable, "train.py", *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for printed in process.stdout:
        lines.append(printed)
        if printed.startswith(line):
            time.sleep(seconds)
            break
    process.kill()
    process.wait(timeout=60)
    return lines


def steps(folder) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row["step"] for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(survey, tmp_path):
    words = ["data=openfwi", f"data.root={survey}", *SETTINGS, *SAVING]
    wait = random.uniform(0, 0.4)
    printed = kill_after("epoch 2/", [*words, f"hydra.run.dir={tmp_path / 'killed'}"], wait)
    reached = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt")["epoch"]
    assert 0 <= reached < 5, f"killed {wait:.2f} s after epoch 2: {''.join(printed)}"
    assert command("train", f"ckpt={tmp_path / 'killed'}") == 0
    assert command("train", *words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    killed, whole = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("killed", "whole"))
    assert killed["global_step"] == whole["global_step"]
    for part in ("state_dict", "current_model_state"):
        for key, value in whole[part].items():
            assert torch.equal(killed[part][key], value), f"{part} {key}, killed {wait:.2f} s after epoch 2"
    assert steps(tmp_path / "killed") == steps(tmp_path / "whole")
