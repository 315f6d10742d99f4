"""train.py on endless fresh maps, augmented: the run, its report, and a stop in the middle."""

import csv

import torch

from tests.integration.helpers import SMALL, command

WORDS = [
    "data=fresh",
    "data.families={FlatVel_A:1,CurveFault_B:2}",
    "data.samples_per_family=10",
    "data.samples_per_file=2",
    "data.samples_per_epoch=8",
    "data.fresh_share=0.75",
    "data.num_workers=0",
    "augment=[physics,flip,corruption]",
    "augment.physics.crop=1",
    "trainer.max_epochs=2",
    *SMALL,
]


def test_a_run_and_its_report(tmp_path):
    words = [*WORDS, f"data.cache={tmp_path / 'cache'}"]
    for simulate_on in ("workers", "device"):
        run = f"hydra.run.dir={tmp_path / simulate_on}"
        assert command("train", *words, f"data.simulate_on={simulate_on}", run) == 0
    one, other = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("workers", "device"))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    assert (tmp_path / "workers" / "figures" / "augmented.png").is_file()
    assert "Augmented pairs" in (tmp_path / "workers" / "report.html").read_text()
    rows = list(csv.DictReader((tmp_path / "workers" / "per_sample.csv").open()))
    assert len(rows) == 4  # validated on the survey's fold alone


def test_a_wrong_setting_is_one_sentence(tmp_path, capfd):
    words = ["augment=physics", "augment.physics.crop=2", f"hydra.run.dir={tmp_path}"]
    assert command("train", *words) == 1
    assert "error: crop must be a probability from 0 (never) to 1 (always), got 2." in capfd.readouterr().err


def test_a_loss_on_corrupted_records_is_warned_of(tmp_path, capfd):
    words = [*WORDS, f"data.cache={tmp_path / 'cache'}", "loss=l1_waveform", "trainer.max_steps=1"]
    assert command("train", *words, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert "warning: the loss compares simulated with corrupted records" in capfd.readouterr().err
