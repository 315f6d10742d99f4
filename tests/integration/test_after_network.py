"""predict.py with what comes after the network: budgets, second starts, lines, bad samples, no network at all."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_lightning import load_model
from fwi_lightning.geology import draw
from fwi_lightning.inversion import steps
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey
from tests.integration.helpers import command
from tests.models.catalogue import make_module, write_checkpoint

SURVEY = Survey(samples=200)
STEPS = ["inference=fixed_point", "inference.tta={flip:true}", "pictures=0"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return write_checkpoint(
        make_module("shallow_unet_small", survey=SURVEY), tmp_path_factory.mktemp("model") / "net.ckpt"
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two files, of two samples and of one."""
    folder = tmp_path_factory.mktemp("data")
    gathers = simulate(torch.from_numpy(draw("FlatVel_A", 3, seed=5)[:, 0]), SURVEY).numpy()
    np.save(folder / "data1.npy", gathers[:2])
    np.save(folder / "single.npy", gathers[2])
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "quality.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def maps(out: Path) -> list[np.ndarray]:
    return [np.load(out / "velocity" / f"{name}.npy") for name in ("data1", "single")]


def test_each_step_says_what_it_has_changed(checkpoint, data, tmp_path):
    words = [f"ckpt={checkpoint}", f"input={data}", *STEPS]
    assert command("predict", *words, f"output={tmp_path}") == 0
    for row in rows(tmp_path):
        assert row["members"] == "2"
        after, end = float(row["misfit_fixed_point"]), float(row["misfit"])
        assert {"misfit_network", "misfit_tta", "seconds_tta", "seconds_fixed_point"} <= set(row)
        assert after == end
    # Whoever asks the network alone finds it improved.
    plain = load_model(checkpoint).predict(np.load(data / "single.npy"))
    assert np.abs(maps(tmp_path)[1] - plain).max() > 1


def test_a_budget_that_suffices_gives_the_same_and_a_second_start_has_nothing_to_do(
    checkpoint, data, tmp_path, capsys, monkeypatch
):
    words = [f"ckpt={checkpoint}", f"input={data}", *STEPS, "batch_size=2"]
    assert command("predict", *words, f"output={tmp_path / 'all'}") == 0
    within = [*words, f"output={tmp_path / 'within'}", "inference.time_budget=1h"]
    assert command("predict", *within) == 0
    assert "done for all samples: network, tta, fixed_point, check\n" in capsys.readouterr().out
    for one, other in zip(maps(tmp_path / "all"), maps(tmp_path / "within"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    monkeypatch.setattr("fwi_lightning.models.VelocityModel.predict_answer", None)
    monkeypatch.setattr("fwi_lightning.models.VelocityModel.predict", lambda *_: None)
    assert command("predict", *within) == 0
    assert "holds all of this already" in capsys.readouterr().out


def test_a_budget_ends_with_every_sample_answered_and_the_next_goes_on(checkpoint, data, tmp_path, capsys, monkeypatch):
    words = [f"ckpt={checkpoint}", f"input={data}", f"output={tmp_path}", *STEPS]
    words += ["batch_size=1", "submission=true", "inference.time_budget=1h"]
    # Time is up after the plain answers, the first two samples' mirror images and a half.
    left = iter([9.0] * 3 + [9.0] * 3 + [-1.0] * 99)
    monkeypatch.setattr("fwi_lightning.commands.predicting.Budget.left", property(lambda _: next(left)))
    monkeypatch.setattr("fwi_lightning.commands.predicting.RESERVE", 0.0)
    assert command("predict", *words) == 0
    said = capsys.readouterr().out
    assert "done for all samples: network; not for all: tta (2 of 3), fixed_point (0 of 3)" in said
    assert [row.get("members") for row in rows(tmp_path)] == ["2", "2", ""]
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 1 + 3 * 70
    np.testing.assert_allclose(
        maps(tmp_path)[1], load_model(checkpoint).predict(np.load(data / "single.npy")), rtol=1e-4
    )
    monkeypatch.undo()
    assert command("predict", *words) == 0
    assert "done for all samples: network, tta, fixed_point, check" in capsys.readouterr().out
    assert [row["members"] for row in rows(tmp_path)] == ["2"] * 3


def test_a_budget_too_small_for_the_network_alone(checkpoint, data, tmp_path, capsys):
    words = [f"ckpt={checkpoint}", f"input={data}", f"output={tmp_path}", "inference.time_budget=0.001"]
    assert command("predict", *words) == 1
    assert "inference.time_budget of 0.001 s is too short: the network's answers alone" in capsys.readouterr().err


def test_a_time_that_is_none(checkpoint, data, tmp_path, capsys):
    words = [f"ckpt={checkpoint}", f"input={data}", f"output={tmp_path / 'out'}", "inference.time_budget=soon"]
    assert command("predict", *words) == 1
    assert "must be a time above 0, such as 60s, 90m or 8h, got 'soon'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refinement_that_was_stopped_goes_on_at_the_next_sample(checkpoint, data, tmp_path, capsys, monkeypatch):
    refined = []
    real = steps.refine

    def stopping(gathers, start, survey, seconds, **settings):
        if len(refined) == 1:
            raise KeyboardInterrupt
        refined.append(float(start.mean()))
        return real(gathers, start, survey, seconds, **settings)

    monkeypatch.setattr(steps, "refine", stopping)
    words = [f"ckpt={checkpoint}", f"input={data}", f"output={tmp_path}", "inference=refine", "pictures=0"]
    words += ["inference.fixed_point=null", "inference.refine.seconds=0.01"]
    assert command("predict", *words) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert command("predict", *words, "inference.refine.misfit=0.5") == 1
    assert "holds unfinished work with other settings (inference)" in capsys.readouterr().err
    refined.extend([0.0])  # stops no more
    assert command("predict", *words) == 0
    assert len(refined) == 2 + 2, "of three samples the first was not refined again"
    assert len(rows(tmp_path)) == 3
    assert all(float(row["misfit_refine"]) <= float(row["misfit_network"]) for row in rows(tmp_path))


def test_a_bad_sample_is_flagged_and_the_others_are_answered(checkpoint, data, tmp_path, capsys):
    gathers = np.load(data / "data1.npy")
    spoilt = np.stack([gathers[0], gathers[1], -gathers[0], np.zeros_like(gathers[0])])
    spoilt[1, 2, 100, 5:9] = np.nan
    np.save(tmp_path / "in.npy", spoilt)
    words = [f"ckpt={checkpoint}", f"input={tmp_path / 'in.npy'}", "pictures=0"]
    assert command("predict", *words, f"output={tmp_path / 'out'}") == 0
    flags = [row["flags"].split(";") for row in rows(tmp_path / "out")]
    assert "not finite" not in flags[0]
    assert "not finite" in flags[1]
    assert "reversed polarity" in flags[2]
    assert flags[3][0] == "silent"
    found = np.load(tmp_path / "out" / "velocity" / "in.npy")
    np.testing.assert_allclose(found[0], load_model(checkpoint).predict(gathers[0]), rtol=1e-4)
    assert np.isfinite(found).all()


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """A line of 88 columns with the shots of windows at 0, 9 and 18."""
    shots = sorted({place + column for place in (0, 9, 18) for column in SURVEY.shot_columns})
    survey = Survey(
        grid=(70, 88), samples=200, shot_columns=tuple(shots), receiver_columns=tuple(range(88)), sponge=120
    )
    velocity = torch.linspace(1600, 3500, 70)[:, None].expand(survey.grid).contiguous()
    path = tmp_path_factory.mktemp("line") / "line.npy"
    np.save(path, simulate(velocity, survey).numpy())
    return path


def test_a_line_is_answered_by_windows(checkpoint, line, tmp_path):
    words = [f"ckpt={checkpoint}", f"input={line}", f"output={tmp_path}", "inference.windows.step=9"]
    assert command("predict", *words, "pictures=1") == 0
    velocity = np.load(tmp_path / "velocity" / "line.npy")
    assert velocity.shape == (1, 70, 88)
    row = rows(tmp_path)[0]
    assert float(row["seam"]) > 0
    assert float(row["misfit"]) > 0
    # At the left edge there is one window only.
    gathers = np.load(line)
    shots = [0, *(int(np.abs(gathers[:, 0, column]).argmax()) for column in (17, 34, 52, 69))]
    alone = load_model(checkpoint).predict(gathers[shots][:, :, :70])
    np.testing.assert_allclose(velocity[:, :, :9], alone[:, :, :9], rtol=1e-3)


def test_lines_that_the_network_cannot_read(checkpoint, line, tmp_path, capsys):
    gathers = np.load(line)
    np.save(tmp_path / "narrow.npy", gathers[:5, :, :60])
    np.save(tmp_path / "sparse.npy", gathers[[0, 3, 6, 9, 12]])
    for name, message in (
        ("narrow", "60 receivers are fewer than the 70 of a window of the network"),
        ("sparse", "it needs shots at 0, 17, 34, 52, 69 of each window of 70 columns"),
    ):
        words = [f"ckpt={checkpoint}", f"input={tmp_path / name}.npy", f"output={tmp_path / 'out'}"]
        assert command("predict", *words) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_refinement_without_a_network(line, tmp_path, capsys):
    words = [f"input={line}", "physics.samples=200", "inference=refine_only", "inference.refine.seconds=0.01"]
    assert command("predict", *words, f"output={tmp_path / 'a'}", "start=gradient", "pictures=0") == 0
    found = np.load(tmp_path / "a" / "velocity" / "line.npy")
    assert found.shape == (1, 70, 88)
    truth = np.linspace(1600, 3500, 70)
    assert np.abs(found[0].mean(axis=1) - truth).mean() < 50, "the gradient nearest to the record: 1600 to 3500"
    np.save(tmp_path / "start.npy", np.broadcast_to(truth[:, None], (70, 88)).astype(np.float32))
    assert command("predict", *words, f"output={tmp_path / 'b'}", f"start={tmp_path / 'start.npy'}", "pictures=0") == 0
    row = rows(tmp_path / "b")[0]
    assert float(row["misfit_start"]) < 1e-4
    assert command("predict", f"input={line}", f"output={tmp_path / 'c'}", "start=gradient") == 1
    assert "start= without a network changes nothing but by refinement" in capsys.readouterr().err
