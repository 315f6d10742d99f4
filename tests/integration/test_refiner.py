"""`python -m fwi_lightning refiner`, from the first network's maps to a refiner that corrects them."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fwi_lightning import load_model
from fwi_lightning.commands import evaluation
from fwi_lightning.data import find_parts
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.refiner import apply_refiner, check_survey
from fwi_lightning.inversion.starts import Starts
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.checkpoint import load_refiner
from tests.integration.helpers import command


@pytest.fixture(scope="module")
def refined(survey, trained, tmp_path_factory) -> SimpleNamespace:
    """A refiner of two epochs behind the run of two epochs."""
    home = tmp_path_factory.mktemp("refiner")
    words = ["data=openfwi", f"data.root={survey}", "physics.samples=400", "model.width=8", "data.batch_size=4"]
    words += [f"network={trained.best}", f"starts={home / 'starts'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LEAST", 1)  # as many held-out samples as would be calibrated on after train.py
        assert command("refiner", *words, "trainer.max_epochs=2", f"hydra.run.dir={home / 'run'}") == 0
    return SimpleNamespace(home=home, words=words, best=home / "run" / "checkpoints" / "best.ckpt")


def some_gathers(survey: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(survey / "CurveFault_B" / "seis6_1_0.npy"))


def test_the_table_has_the_first_networks_own_scores(refined, trained):
    def read(path):
        with path.open(newline="") as file:
            return {row["family"]: row for row in csv.DictReader(file)}

    rows = read(refined.home / "run" / "refiner.csv")
    network, after = read(trained.folder / "per_family.csv"), read(refined.home / "run" / "per_family.csv")
    assert set(rows) == {"FlatVel_A", "CurveFault_B", "all"}
    for family, row in rows.items():
        # The network's maps are brought between 1500 and 4500 m/s first, which two epochs do not leave.
        assert float(row["mae before"]) == pytest.approx(float(network[family]["mae"]), rel=1e-3)
        assert float(row["mae after"]) == pytest.approx(float(after[family]["mae"]), rel=1e-5)
    assert float(rows["all"]["mae after"]) != pytest.approx(float(rows["all"]["mae before"]), rel=1e-4)
    assert (refined.home / "run" / "report.html").is_file()


def test_what_is_kept_is_what_the_network_and_the_simulator_say(refined, trained, survey):
    model = load_model(trained.best)
    key = torch.load(refined.best, weights_only=True)["hyper_parameters"]["network"]
    starts = Starts(refined.home / "starts", key, lambda _: pytest.fail("computed again"), model.survey, 4)
    part = next(part for part in find_parts(survey, survey=model.survey) if part.family == "CurveFault_B")
    starts.write([part])  # all there
    folder = starts.of(part)
    gathers = torch.from_numpy(np.load(part.gathers))
    start = model.predict(gathers).clamp(1500, 4500)
    np.testing.assert_allclose(np.load(folder / "start.npy"), start, rtol=1e-5)
    # The gradient against a difference quotient of the misfit along it.
    time = 1e-3 * torch.arange(400)[:, None]
    time[-1] = 0
    gradient = torch.from_numpy(np.load(folder / "gradient.npy"))[0]
    slowest = start[0].amin()[None]

    def misfit(velocity):
        record = simulate(velocity, model.survey, slowest=slowest)
        return float((time * (record - gathers[0])).double().square().sum() / 2)

    step = 10 * gradient / gradient.square().sum().sqrt()
    quotient = (misfit(start[0] + step) - misfit(start[0] - step)) / 20
    assert quotient == pytest.approx(float(gradient.square().sum().sqrt()), rel=0.01)
    residual = gathers - simulate(start[:, 0], model.survey)
    stored = np.load(folder / "residual.npy").astype(np.float32)
    np.testing.assert_allclose(stored, residual[:, :, ::4], rtol=1e-3, atol=1e-4)


def test_a_correction_is_kept_only_where_the_misfit_falls(refined, trained, survey):
    model = load_model(trained.best)
    refiner = load_refiner(refined.best)
    gathers = some_gathers(survey)
    start = model.predict(gathers).clamp(1500, 4500)
    free = apply_refiner(gathers, start, refiner, must_fit=False)
    assert free.accepted.tolist() == [1, 1]
    assert not torch.allclose(free.velocity, start, atol=1.0)
    torch.testing.assert_close(free.start_misfit, apply_refiner(gathers, start, refiner, passes=2).start_misfit)
    # From the truth every way is the wrong one.
    truth = torch.from_numpy(np.load(survey / "CurveFault_B" / "vel6_1_0.npy"))
    kept = apply_refiner(gathers, truth, refiner, passes=2)
    torch.testing.assert_close(kept.velocity, truth)
    assert kept.accepted.tolist() == [0, 0]
    assert kept.misfit.max() < 1e-4
    worse = apply_refiner(gathers, truth, refiner, passes=2, must_fit=False)
    assert worse.accepted.tolist() == [2, 2]
    assert (worse.misfit > 100 * worse.start_misfit).all()


def test_files_and_settings_that_do_not_fit_get_a_sentence(refined, trained, survey, tmp_path, capsys):
    for words, message in (
        (["network=missing.ckpt"], "missing.ckpt is not a file: give network= a checkpoint"),
        ([f"network={refined.best}"], "give network= that model, and use the refiner with"),
        (["physics.samples=500"], "reads another survey than physics= describes"),
        (["augment=flip"], "trained without augmentation"),
        (["data=fresh"], "samples that stay the same"),
        (["model=unet"], "made with model=refiner"),
        (["calibration=200"], "answers nothing alone"),
        ([f"before=[{trained.best}]"], "is no refiner"),
    ):
        kept = [word for word in refined.words if not any(word.split("=")[0] == new.split("=")[0] for new in words)]
        if words == ["data=fresh"]:
            kept = [word for word in kept if not word.startswith("data.")]
        if words == ["model=unet"]:
            kept = [word for word in kept if not word.startswith("model.")]
        assert command("refiner", *kept, *words, f"hydra.run.dir={tmp_path / 'run'}") == 1
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match=r"was trained for another survey \(samples=400, here 1000\)"):
        check_survey(load_refiner(refined.best), OPENFWI, "FILE")


def test_predict_corrects_with_it_and_says_what_became_of_the_misfit(refined, trained, survey, tmp_path):
    words = [f"ckpt={trained.best}", f"input={survey / 'CurveFault_B'}", "misfit=true"]
    words += ["inference=refiner", f"inference.refiner.ckpt={refined.best}"]
    assert command("predict", *words, "inference.refiner.must_fit=false", f"output={tmp_path}") == 0
    with (tmp_path / "quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    gathers = some_gathers(survey)
    start = load_model(trained.best).predict(gathers)
    expected = apply_refiner(gathers, start, load_refiner(refined.best), must_fit=False)
    velocity = np.load(next((tmp_path / "velocity").rglob("seis6_1_0.npy")))
    np.testing.assert_allclose(velocity, expected.velocity, rtol=1e-4)
    for row, misfit, before in zip(rows, expected.misfit.tolist(), expected.start_misfit.tolist(), strict=False):
        assert float(row["misfit_refiner"]) == pytest.approx(misfit, rel=1e-3)
        assert float(row["misfit_network"]) == pytest.approx(before, rel=1e-3)
        assert row["refiner_corrections"] == "1"
