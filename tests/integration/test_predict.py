"""predict.py and the other commands as a user runs them."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fwi_lightning import load_model
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import simulate
from fwi_lightning.starter import TEST_SEED
from fwi_lightning.survey import Survey
from tests.integration.helpers import SURVEY, command
from tests.models.catalogue import make_module, write_checkpoint


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def seismic(survey) -> Path:
    return sorted((survey / "CurveFault_B").glob("seis*.npy"))[0]


def test_one_file_of_one_sample(trained, seismic, tmp_path):
    gathers = np.load(seismic)[1]
    np.save(tmp_path / "shot.npy", gathers)
    out = tmp_path / "out"
    assert command("predict", f"ckpt={trained.best}", f"input={tmp_path / 'shot.npy'}", f"output={out}") == 0
    velocity = np.load(out / "velocity" / "shot.npy")
    assert velocity.shape == (1, 70, 70)
    np.testing.assert_allclose(velocity, load_model(trained.best).predict(gathers), rtol=1e-5)
    row = read(out / "quality.csv")[0]
    again = simulate(torch.from_numpy(velocity[0]).clamp(1400, 4600), Survey(samples=400)).numpy()
    expected = np.sqrt(((again - gathers)[:, :-1] ** 2).sum() / (gathers[:, :-1] ** 2).sum())
    assert (row["name"], row["index"]) == ("shot", "0")
    assert float(row["misfit"]) == pytest.approx(expected, rel=1e-3)


def test_one_array_out_per_array_in(trained, survey, tmp_path):
    assert command("predict", f"ckpt={trained.best}", f"input={survey}", f"output={tmp_path}", "batch_size=3") == 0
    model = load_model(trained.best)
    for path in survey.glob("*/*.npy"):
        written = tmp_path / "velocity" / path.relative_to(survey)
        assert written.is_file() == path.name.startswith(("data", "seis"))
        if written.is_file():
            np.testing.assert_allclose(np.load(written), model.predict(np.load(path)), rtol=1e-4)
    assert len(read(tmp_path / "quality.csv")) == 20


def test_truth_gives_scores_that_a_hand_calculation_confirms(trained, seismic, tmp_path):
    truth = seismic.with_name(seismic.name.replace("seis", "vel"))
    words = [f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path}", f"truth={truth}"]
    assert command("predict", *words) == 0
    error = np.load(tmp_path / "velocity" / seismic.name).astype(np.float64) - np.load(truth)
    rows = read(tmp_path / "scores.csv")
    assert [float(row["mae"]) for row in rows] == pytest.approx(np.abs(error).mean(axis=(1, 2, 3)).tolist())
    assert [float(row["rmse"]) for row in rows] == pytest.approx(np.sqrt((error**2).mean(axis=(1, 2, 3))).tolist())


@pytest.fixture(scope="module")
def with_heads(tmp_path_factory) -> Path:
    """A checkpoint of a model with both heads, of which one says what it is told to."""
    words = ["model.uncertainty_head=true", "model.family_head=true"]
    module = make_module("shallow_unet_small", *words, survey=Survey(samples=400))
    with torch.no_grad():
        module.model.family_head.weight.zero_()
        module.model.family_head.bias.copy_(torch.eye(len(FAMILIES))[3] * 2)
    return write_checkpoint(module, tmp_path_factory.mktemp("heads") / "heads.ckpt")


def test_heads_stand_in_the_quality_and_on_the_page(with_heads, seismic, tmp_path, capsys):
    gathers = np.concatenate([np.load(seismic), 3 * np.load(seismic), -np.load(seismic)])
    np.save(tmp_path / "data1.npy", gathers)
    np.save(tmp_path / "model1.npy", draw("CurveFault_B", len(gathers), seed=0))
    words = [f"ckpt={with_heads}", f"input={tmp_path / 'data1.npy'}", f"output={tmp_path / 'out'}", "batch_size=4"]
    assert command("predict", *words, f"truth={tmp_path / 'model1.npy'}", "misfit=false") == 0
    rows = read(tmp_path / "out" / "quality.csv")
    columns = ["name", "index", "misfit", "flags", "expected_mae", "family", "family_probability"]
    assert list(rows[0]) == columns
    with torch.no_grad():
        answer = load_model(with_heads).answer(torch.from_numpy(gathers))
    expected = answer.scale.mean(dim=(1, 2, 3)).tolist()
    assert [float(row["expected_mae"]) for row in rows] == pytest.approx(expected, rel=1e-4)
    assert {row["family"] for row in rows} == {FAMILIES[3]}
    assert float(rows[0]["family_probability"]) == pytest.approx(np.exp(2) / (np.exp(2) + 9), rel=1e-5)
    true = [float(row["mae"]) for row in read(tmp_path / "out" / "scores.csv")]
    correlation = f"{spearmanr(expected, true).statistic:.2f}"
    assert f"rank correlation of expected and true MAE: {correlation}\n" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"rank correlation with the true MAE {correlation}" in page
    assert FAMILIES[3] in page


def test_a_model_without_heads_has_no_columns_of_theirs(trained, seismic, tmp_path):
    words = [f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path}", "misfit=false"]
    assert command("predict", *words) == 0
    assert list(read(tmp_path / "quality.csv")[0]) == ["name", "index", "misfit", "flags"]


def test_what_comes_after_the_network_explains_more_of_the_record(trained, seismic, tmp_path):
    np.save(tmp_path / "shot.npy", np.load(seismic)[0])
    words = [f"ckpt={trained.best}", f"input={tmp_path / 'shot.npy'}", "inference=refine"]
    enough = ["inference.refine.seconds=200", "inference.refine.misfit=0.7"]
    assert command("predict", *words, *enough, f"output={tmp_path / 'out'}") == 0
    row = read(tmp_path / "out" / "quality.csv")[0]
    assert float(row["misfit"]) <= 0.7 < float(row["misfit_network"])
    assert 0 < float(row["seconds_refine"]) < 200


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_half_precision_answers_nearly_the_same(trained, seismic, tmp_path, precision):
    maps = []
    for name in ("32", precision):
        words = [f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path / name}", f"precision={name}"]
        assert command("predict", *words) == 0
        maps.append(np.load(next((tmp_path / name / "velocity").rglob("*.npy"))))
    assert 0 < np.abs(maps[0] - maps[1]).mean() < 30


def test_a_precision_that_does_not_exist(trained, seismic, tmp_path, capsys):
    words = [f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path / 'out'}", "precision=8"]
    assert command("predict", *words) == 1
    assert capsys.readouterr().err == "error: precision must be 32, bf16, 16, got 8.\n"


def test_a_processor_without_float16_says_so(trained, seismic, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr("torch.nn.Conv2d.forward", refuse)
    words = [f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path / 'out'}", "precision=16"]
    assert command("predict", *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: this device cannot compute with precision=16 (")
    assert error.endswith("): use precision=32.\n")
    assert not (tmp_path / "out").exists()


def test_truth_in_a_folder_is_found_by_name(trained, survey, tmp_path):
    words = [f"ckpt={trained.best}", f"input={survey}", f"output={tmp_path}", f"truth={survey}", "misfit=false"]
    assert command("predict", *words) == 0
    assert len(read(tmp_path / "scores.csv")) == 20
    assert {row["misfit"] for row in read(tmp_path / "quality.csv")} == {""}


def test_submission_has_the_format_of_the_competition(trained, survey, tmp_path):
    names = ["000039dca2", "0001026c8a", "00015b24d5"]
    gathers = np.load(next(survey.rglob("data1.npy")))
    (tmp_path / "test").mkdir()
    for number, name in enumerate(names):
        np.save(tmp_path / "test" / f"{name}.npy", gathers[number % len(gathers)])
    words = [f"ckpt={trained.best}", f"input={tmp_path / 'test'}", f"output={tmp_path}", "submission=true"]
    assert command("predict", *words) == 0
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "oid_ypos," + ",".join(f"x_{column}" for column in range(1, 70, 2))
    assert len(lines) == 1 + 3 * 70
    rows = dict(line.split(",", 1) for line in lines[1:])
    assert set(rows) == {f"{name}_y_{y}" for name in names for y in range(70)}
    velocity = np.load(tmp_path / "velocity" / f"{names[1]}.npy")[0]
    written = [float(value) for value in rows[f"{names[1]}_y_12"].split(",")]
    assert written == pytest.approx(velocity[12, 1::2].tolist(), abs=0.006)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources = []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_opens_offline(trained, seismic, tmp_path):
    assert command("predict", f"ckpt={trained.best}", f"input={seismic}", f"output={tmp_path}") == 0
    page = Page()
    page.feed((tmp_path / "report.html").read_text())
    assert page.sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)


def broken(folder: Path, kind: str) -> Path:
    """A file or folder with something wrong."""
    good = np.random.default_rng(0).normal(size=(2, 5, 400, 70)).astype(np.float32)
    path = folder / "data1.npy"
    if kind == "empty folder":
        return folder
    if kind == "missing":
        return folder / "missing.npy"
    if kind == "shape":
        good = good[:, :, :, :60]
    if kind == "dtype":
        good = good.astype(np.int32)
    if kind == "nan":
        good = good[:1]  # one bad sample of several is flagged
        good[0, 2, 3, 4] = np.nan
    np.save(path, good)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    if kind == "text":
        path.write_text("no numbers")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "missing.npy does not exist"),
        ("empty folder", "holds no .npy files"),
        ("shape", r"60 receivers are fewer than the 70 of a window of the network"),
        ("dtype", "int32"),
        ("nan", "sample 0, holds values that are not finite"),
        ("truncated", "cut short"),
        ("text", "is not a .npy file"),
    ],
)
def test_bad_gathers_get_one_sentence(trained, tmp_path, capsys, kind, message):
    (tmp_path / "in").mkdir()
    source = broken(tmp_path / "in", kind)
    out = tmp_path / "out"
    assert command("predict", f"ckpt={trained.best}", f"input={source}", f"output={out}", "submission=true") == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_a_file_that_is_no_checkpoint(trained, seismic, tmp_path, capsys):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(trained.best.read_bytes()[:5000])
    for name in ("text", "foreign", "cut"):
        words = [f"ckpt={tmp_path / name}.ckpt", f"input={seismic}", f"output={tmp_path / 'out'}"]
        assert command("predict", *words) == 1
        assert "checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["inference.refine.seconds=8"],
            "inference.refine is off here (null), so it has no 'seconds': give all of its settings at once, "
            "inference.refine={seconds:...}, or choose another inference=NAME that has it on.",
        ),
        (["inference=refine", "inference.refine.secnds=8"], "Did you mean inference.refine.seconds?"),
        (["inference=refine", "inference.fixed_point.steps=3"], "inference.fixed_point is off here (null)"),
        (["inference=refine", "inference.refinement=3"], "Did you mean inference.refine?"),
    ],
)
def test_a_setting_that_is_not_there_is_looked_for_in_the_files_that_were_chosen(capsys, words, message):
    assert command("predict", "input=nowhere.npy", "output=nowhere", *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_settings_that_are_missing_are_named(capsys):
    assert command("export", "ckpt=x") == 1
    assert capsys.readouterr().err == "error: output is needed: add output=... to the command.\n"


def test_without_a_checkpoint_the_starter_model_answers(trained, seismic, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fwi_lightning.starter.CHECKPOINT", trained.best)
    assert command("predict", f"input={seismic}", f"output={tmp_path / 'out'}", "misfit=false", "pictures=0") == 0
    written = next((tmp_path / "out/velocity").rglob("*.npy"))
    np.testing.assert_allclose(np.load(written), load_model(trained.best).predict(np.load(seismic)), rtol=1e-4)
    monkeypatch.setattr("fwi_lightning.starter.CHECKPOINT", tmp_path / "none.ckpt")
    assert command("predict", f"input={seismic}", f"output={tmp_path / 'none'}") == 1
    assert "this copy has no starter model" in capsys.readouterr().err


def test_with_nothing_to_invert_it_shows_what_it_can(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fwi_lightning.commands.demo.FAMILIES", ("FlatVel_A", "CurveFault_B"))
    monkeypatch.setattr("fwi_lightning.commands.demo.SECONDS", 1)
    assert command("predict", f"ckpt={trained.best}", f"output={tmp_path}") == 0
    said = capsys.readouterr().out
    model = load_model(trained.best)
    for family in ("FlatVel_A", "CurveFault_B"):
        truth = draw(family, 1, TEST_SEED, start=50)
        gathers = np.load(tmp_path / f"gathers/{family}.npy")
        assert np.array_equal(np.load(tmp_path / f"truth/{family}.npy"), truth)
        assert np.array_equal(gathers, simulate(torch.from_numpy(truth[:, 0]), model.survey).numpy())
        np.testing.assert_allclose(np.load(tmp_path / f"maps/velocity/{family}.npy"), model.predict(gathers), rtol=1e-4)
    assert (tmp_path / "maps/scores.csv").is_file()
    assert float(read(tmp_path / "refined/quality.csv")[0]["misfit"]) > 0
    for page in ("maps/report.html", "refined/report.html"):
        assert str(tmp_path / page) in said
        assert (tmp_path / page).is_file()


def test_an_output_that_cannot_be_written(trained, seismic, capsys):
    assert command("predict", f"ckpt={trained.best}", f"input={seismic}", "output=/proc/out") == 1
    assert "/proc/out cannot be written" in capsys.readouterr().err


def test_simulate_writes_what_draw_and_simulate_give(survey):
    settings = json.loads((survey / "manifest.json").read_text())["settings"]
    assert (settings["seed"], settings["survey"]["samples"]) == (0, 400)
    maps = draw("FlatVel_A", 10, seed=0)
    written = [np.load(survey / "FlatVel_A" / "model" / f"model{number}.npy") for number in range(1, 6)]
    np.testing.assert_array_equal(np.concatenate(written), maps)
    gathers = np.load(survey / "FlatVel_A" / "data" / "data5.npy")
    expected = simulate(torch.from_numpy(maps[8:, 0]), Survey(samples=400)).numpy()
    np.testing.assert_array_equal(gathers, expected)


def test_simulate_again_does_nothing_and_other_settings_are_refused(survey, capsys):
    before = {path: path.stat().st_mtime_ns for path in survey.rglob("*.npy")}
    assert command("simulate", f"output={survey}", *SURVEY) == 0
    assert before == {path: path.stat().st_mtime_ns for path in survey.rglob("*.npy")}
    assert command("simulate", f"output={survey}", *SURVEY, "seed=1") == 1
    assert "seed" in capsys.readouterr().err


def test_geology_writes_a_sheet_and_compares_recorded_maps(survey, tmp_path):
    assert command("geology", f"output={tmp_path}", f"input={survey}", "maps=12", "physics.samples=400") == 0
    rows = {row["family"]: row for row in read(tmp_path / "statistics.csv")}
    assert len(rows) == 12
    recorded, drawn = rows["CurveFault_B (recorded)"], rows["CurveFault_B"]
    assert (recorded["maps"], drawn["maps"]) == ("10", "12")
    assert (tmp_path / "contact_sheet.png").read_bytes()[:4] == b"\x89PNG"
