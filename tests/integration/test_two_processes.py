"""Two processes on one machine (gloo) do what one does with batches of twice the size."""

import csv

import numpy as np
import pytest
import torch

from tests.integration.helpers import command, script

# A model without batch norms, which see the share of a batch that their process has.
MODEL = ["model=eva02", "model.patch=50", "physics.samples=400", "loss=l1", "optimizer=sgd", "optimizer.lr=0.01"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    words = ["data=openfwi", f"data.root={survey}", *MODEL, "trainer.max_epochs=1", "~callbacks.ema"]
    one = [*words, "trainer=cpu", "data.batch_size=8", f"hydra.run.dir={folder / 'one'}"]
    two = [*words, *DDP, "data.batch_size=4", f"hydra.run.dir={folder / 'two'}"]
    assert command("train", *one) == 0
    done = script("train.py", *two)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "one", folder / "two"


def test_weights_are_those_of_one_process(runs):
    one, two = (torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in runs)
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


def test_scores_and_their_tables_too(runs):
    for name in ("per_family.csv", "per_sample.csv"):
        one, two = (read(folder / name) for folder in runs)
        assert len(one) == len(two) > 2
        for mine, other in zip(one, two, strict=True):
            assert [mine[key] for key in ("family",)] == [other[key] for key in ("family",)]
            for key in ("mae", "rmse", "ssim", "boundary_iou"):
                assert float(other[key]) == pytest.approx(float(mine[key]), rel=1e-4, abs=1e-5)
    logged = [[row for row in read(folder / "metrics.csv") if row["val/mae"]][-1] for folder in runs]
    for key in ("val/mae", "val/ssim", "val/mae/CurveFault_B"):
        np.testing.assert_allclose(float(logged[1][key]), float(logged[0][key]), rtol=1e-5)
