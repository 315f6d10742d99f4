"""`python -m fwi_lightning adapt`: predict, simulate, fine-tune, again."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fwi_lightning import load_model
from fwi_lightning.commands import adapt
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms
from tests.integration.helpers import command


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def adapted(survey, trained, tmp_path_factory) -> SimpleNamespace:
    """Two rounds on six samples of one family, with data of the original kind beside them."""
    home = tmp_path_factory.mktemp("adapt")
    (home / "input").mkdir()
    for number in (6, 7, 8):
        shutil.copy(survey / "CurveFault_B" / f"seis{number}_1_0.npy", home / "input" / f"line{number}.npy")
    (home / "truth").mkdir()
    for number in (6, 7, 8):
        shutil.copy(survey / "CurveFault_B" / f"vel{number}_1_0.npy", home / "truth" / f"line{number}.npy")
    words = [f"ckpt={trained.best}", f"input={home / 'input'}", f"output={home / 'out'}", f"truth={home / 'truth'}"]
    words += [f"keep={survey}", "kept_share=0.5", "trainer.max_epochs=1", "batch_size=4", "trainer.log_every_n_steps=1"]
    assert command("adapt", *words) == 0
    return SimpleNamespace(home=home, words=words, out=home / "out")


def test_each_rounds_pairs_are_predictions_and_exact_records(adapted, trained):
    files = sorted((adapted.home / "input").glob("*.npy"))
    gathers = torch.from_numpy(np.concatenate([np.load(file) for file in files]))
    truth = torch.from_numpy(np.concatenate([np.load(adapted.home / "truth" / file.name) for file in files]))
    rows = read(adapted.out / "adapt.csv")
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    checkpoints = [trained.best, adapted.out / "round1" / "adapted.ckpt", adapted.out / "adapted.ckpt"]
    folders = [adapted.out / "round1" / "pairs", adapted.out / "round2" / "pairs", adapted.out / "after"]
    for row, ckpt, folder in zip(rows, checkpoints, folders, strict=True):
        model = load_model(ckpt)
        velocity = model.predict(gathers).clamp(1500, 4500)
        record = simulate(velocity[:, 0], model.survey)
        (path,) = [path for path in folder.rglob("data1.npy") if "kept" not in path.parts]
        np.testing.assert_allclose(np.load(path), record, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(np.load(path.parents[1] / "model" / "model1.npy"), velocity, rtol=1e-5)
        assert float(row["misfit"]) == pytest.approx(float(relative_rms(gathers, record).quantile(0.5)), rel=1e-3)
        assert float(row["mae"]) == pytest.approx(float((velocity - truth).abs().mean()), rel=1e-4)


def test_a_round_trains_all_weights_on_the_pairs_and_on_what_is_kept(adapted, trained):
    before, after = (torch.load(path, weights_only=True) for path in (trained.best, adapted.out / "adapted.ckpt"))
    assert set(after) == {"state_dict", "hyper_parameters"}
    assert after["hyper_parameters"]["families"][:2] == before["hyper_parameters"]["families"]
    scale = "model.transform.scale"  # of the data that the model was made for
    torch.testing.assert_close(after["state_dict"][scale], before["state_dict"][scale])
    weights = [name for name in before["state_dict"] if name.endswith("weight")]
    assert weights
    assert not any(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in weights)
    split = read(adapted.out / "round1" / "split.csv")
    assert {row["fold"] for row in split} == {"-1"}
    # Six pairs and three of the twenty kept ones are three batches of four at most.
    metrics = read(adapted.out / "round1" / "metrics.csv")
    assert max(int(row["step"]) for row in metrics) == 2


def test_a_second_start_goes_on_where_the_first_one_stopped(adapted, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(adapted.out, out, symlinks=True)
    words = [f"output={out}" if word.startswith("output=") else word for word in adapted.words]
    monkeypatch.setattr(adapt, "_train", lambda *_: pytest.fail("trained again"))
    assert command("adapt", *words) == 0
    assert (out / "adapted.ckpt").read_bytes() == (adapted.out / "adapted.ckpt").read_bytes()
    # Another input does not belong into the folder.
    words = [word for word in words if not word.startswith(("input=", "truth="))]
    assert command("adapt", *words, f"input={adapted.home / 'truth' / '..' / 'input' / 'line6.npy'}") == 1
    assert "choose another folder" in capsys.readouterr().err


def test_bad_input_gets_a_sentence(adapted, tmp_path, capsys):
    for word, message in (
        ("rounds=0", "rounds must be a whole number of at least 1, got 0"),
        ("kept_share=0", "kept_share must be above 0"),
        ("bounds=[4500,1500]", "bounds must be the lowest and the highest velocity"),
        ("trainer.devices=2", "adapt trains on one device"),
        (f"keep={tmp_path / 'none'}", "is no folder"),
        (f"input={tmp_path / 'none'}", "does not exist"),
        ("trainer.precision=16-true", "would round the true maps"),
        ("ckpt=none.ckpt", "is not a file"),
    ):
        kept = [one for one in adapted.words if one.split("=")[0] not in (word.split("=")[0], "output")]
        assert command("adapt", *kept, word, f"output={tmp_path / 'out'}") == 1
        assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npy"))
