"""Weights & Biases offline, TensorBoard, and what a run sends them."""

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fwi_lightning.errors import UserError
from fwi_lightning.training import dashboards
from fwi_lightning.training.dashboards import RunWandb, run_id
from tests.integration.helpers import SMALL, command


@pytest.fixture
def words(survey):
    return [
        "data=openfwi",
        f"data.root={survey}",
        *SMALL,
        "loss=l1",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=2",
        "callbacks.pictures.samples=2",
    ]


def test_an_offline_run_lies_in_its_folder_and_goes_on_as_the_same_run(words, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged: set[str] = set()
    send = RunWandb.log_metrics

    def log(logger, metrics, step=None):
        logged.update(metrics)
        send(logger, metrics, step)

    monkeypatch.setattr(RunWandb, "log_metrics", log)
    folder = tmp_path / "run"
    assert command("train", *words, "logger=wandb", f"hydra.run.dir={folder}") == 0
    wandb.finish()
    (recorded,) = (folder / "wandb").glob("offline-run-*")
    identity = (folder / "wandb.id").read_text().strip()
    assert recorded.name.endswith(identity)
    pictures = list((recorded / "files" / "media" / "images").rglob("*.png"))
    assert len(pictures) == 2
    assert {"val/boundary_iou", "train/grad_norm", "train/samples_per_s", "val/mae/CurveFault_B"} <= logged
    assert run_id(folder) == identity


def test_tensorboard_has_curves_and_pictures(words, tmp_path):
    folder = tmp_path / "run"
    assert command("train", *words, "logger=tensorboard", f"hydra.run.dir={folder}") == 0
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"train/loss", "train/clipped", "val/ssim"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["samples/0", "samples/1"]
    image = events.Images("samples/0")[0]
    assert image.width > 500


def test_online_without_a_network_goes_on_offline_with_one_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dashboards, "SERVER", ("127.0.0.1", 9))
    logger = RunWandb(str(tmp_path), mode="online")
    assert logger._offline
    assert capsys.readouterr().err == "warning: 127.0.0.1 does not answer: Weights & Biases goes on offline.\n"


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"logger.wandb.mode must be offline, online or disabled, got 'on'"):
        RunWandb(str(tmp_path), mode="on")
