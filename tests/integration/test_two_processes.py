"""Two processes on one machine (gloo), with all weights or half of them each, do what one does with twice the batch."""

import csv

import numpy as np
import pytest
import torch

from tests.integration.helpers import command, script

# A model without batch norms, which see the share of a batch that their process has.
MODEL = ["model=eva02", "model.patch=50", "model.uncertainty_head=true", "physics.samples=400"]
MODEL += ["optimizer=sgd", "optimizer.lr=0.01"]
WAYS = {"ddp": ["logger=wandb", "callbacks.pictures.samples=1"], "fsdp": []}


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    words = ["data=openfwi", f"data.root={survey}", *MODEL, "trainer.max_epochs=1", "~callbacks.ema"]
    one = [*words, "trainer=cpu", "data.batch_size=8", "data.eval_batch_size=3", f"hydra.run.dir={folder / 'one'}"]
    assert command("train", *one) == 0
    for way, more in WAYS.items():
        two = [*more, f"trainer={way}", "trainer.accelerator=cpu", "trainer.devices=2"]
        two += ["data.batch_size=4", "data.eval_batch_size=1"]
        done = script("train.py", *words, *two, f"hydra.run.dir={folder / way}")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_those_of_one_process(runs, way):
    one, two = (torch.load(runs / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("one", way))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


def test_one_of_them_sends_to_the_dashboard(runs):
    (recorded,) = (runs / "ddp" / "wandb").glob("offline-run-*")
    assert len(list((recorded / "files" / "media" / "images").rglob("*.png"))) == 1


@pytest.mark.parametrize("way", WAYS)
def test_scores_and_their_tables_too(runs, way):
    for name in ("per_family.csv", "per_sample.csv"):
        one, two = (read(runs / run / name) for run in ("one", way))
        assert len(one) == len(two) > 2
        for mine, other in zip(one, two, strict=True):
            assert [mine[key] for key in ("family",)] == [other[key] for key in ("family",)]
            for key in ("mae", "rmse", "ssim", "boundary_iou"):
                assert float(other[key]) == pytest.approx(float(mine[key]), rel=1e-4, abs=1e-5)
    logged = [[row for row in read(runs / run / "metrics.csv") if row["val/mae"]][-1] for run in ("one", way)]
    for key in ("val/mae", "val/ssim", "val/mae/CurveFault_B", "val/pde_residual", "val/expected_mae"):
        np.testing.assert_allclose(float(logged[1][key]), float(logged[0][key]), rtol=1e-5)
