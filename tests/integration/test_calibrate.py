"""calibrate and what predict.py makes of it, as a user runs them."""

import csv

import numpy as np
import pytest

from fwi_lightning.inversion.calibration import read_calibration
from tests.integration.helpers import command


@pytest.fixture(scope="module")
def calibrated(trained, survey, tmp_path_factory):
    """A copy of the trained checkpoint, calibrated on all twenty samples."""
    path = tmp_path_factory.mktemp("calibrated") / "a.ckpt"
    path.write_bytes(trained.best.read_bytes())
    assert command("calibrate", f"ckpt={path}", f"input={survey}", "inference=crf") == 0
    return path


def test_predictions_carry_expected_errors_and_uncertainty(calibrated, survey, tmp_path):
    assert list(read_calibration(calibrated).expectations) == ["network", "crf"]
    words = [f"ckpt={calibrated}", f"input={survey / 'FlatVel_A'}", f"output={tmp_path}", "pictures=1"]
    assert command("predict", *words, f"truth={survey / 'FlatVel_A'}") == 0
    with (tmp_path / "quality.csv").open(newline="") as file:
        quality = list(csv.DictReader(file))
    expected = np.array([float(row["expected_mae"]) for row in quality])
    assert {row["expected_mae_of"] for row in quality} == {"network"}
    with (tmp_path / "scores.csv").open(newline="") as file:
        true = np.array([float(row["mae"]) for row in csv.DictReader(file)])
    assert expected.mean() == pytest.approx(true.mean(), rel=0.3)
    errors, within = [], []
    for path in sorted((tmp_path / "velocity").rglob("*.npy")):
        truth = np.load(survey / "FlatVel_A" / "model" / path.name.replace("data", "model"))
        errors.append(np.abs(np.load(path) - truth))
        within.append(np.load(tmp_path / "uncertainty" / path.relative_to(tmp_path / "velocity")))
    assert 0.5 < (np.concatenate(errors) < np.concatenate(within)).mean() < 0.9
    shots = [[float(row[f"misfit_shot_{shot}"]) for shot in range(1, 6)] for row in quality]
    assert all(min(row) <= float(line["misfit"]) <= max(row) for row, line in zip(shots, quality, strict=True))
    page = (tmp_path / "report.html").read_text()
    assert "rank correlation with the true MAE" in page


def test_bad_settings_get_one_sentence(trained, survey, tmp_path, capsys):
    alone = tmp_path / "a.ckpt"
    alone.write_bytes(trained.best.read_bytes())
    for words, message in (
        ([f"ckpt={alone}"], "does not lie in a run folder"),
        ([f"ckpt={trained.best}"], "at least 20 samples with their truth, got 4"),
        ([f"ckpt={alone}", f"input={survey}", "samples=5"], "samples must be at least 20, got 5"),
        ([f"ckpt={tmp_path / 'none.ckpt'}", f"input={survey}"], "is not a file"),
    ):
        assert command("calibrate", *words) == 1
        assert message in capsys.readouterr().err
    assert read_calibration(alone) is None
