"""The page of a data set: written whatever is wrong with the data, offline, with every fault in its table."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.integration.helpers import command

WORDS = ["physics.samples=400", "simulate_per_family=1"]
TABLES = ["families.csv", "problems.csv", "simulated.csv"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def change(path: Path, row: int, values) -> None:
    array = np.load(path)
    array[row] = values(array[row])
    np.save(path, array)


@pytest.fixture(scope="module")
def spoiled(survey, tmp_path_factory) -> Path:
    """The survey with a fault of each kind."""
    root = Path(shutil.copytree(survey, tmp_path_factory.mktemp("spoiled") / "data"))
    flat, fault = root / "FlatVel_A", root / "CurveFault_B"
    gathers = np.load(flat / "data/data1.npy")
    np.save(flat / "data/data1.npy", gathers[::-1])  # two rows exchanged
    change(flat / "data/data2.npy", 1, lambda old: np.where(old == old.max(), np.nan, old))
    change(flat / "data/data3.npy", 0, np.zeros_like)
    os.truncate(flat / "data/data4.npy", 300_000)
    change(flat / "model/model5.npy", 1, lambda old: old / 1000)
    change(fault / "seis7_1_0.npy", 0, lambda old: np.roll(old, 5, axis=1))
    first = {word: np.load(fault / f"{word}6_1_0.npy")[0] for word in ("seis", "vel")}
    for word, values in first.items():  # another file, and so another fold
        change(fault / f"{word}8_1_0.npy", 1, lambda _, values=values: values)
    mirrored = np.load(fault / "vel6_1_0.npy")[1, :, :, ::-1]
    change(fault / "vel6_1_1.npy", 0, lambda old: mirrored + np.random.default_rng(0).normal(0, 2, old.shape))
    return root


def test_a_sound_survey(survey, tmp_path, capsys):
    assert command("explore", f"input={survey}", f"output={tmp_path}", *WORDS) == 0
    printed = capsys.readouterr().out
    assert "0 problems found" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "report.html")
    assert (tmp_path / "problems.csv").read_text().startswith("problem,family,file,row,sentence")
    assert read(tmp_path / "problems.csv") == []
    rows = read(tmp_path / "families.csv")
    assert [(row["family"], row["samples"], row["known"]) for row in rows] == [
        ("CurveFault_B", "10", "True"),
        ("FlatVel_A", "10", "True"),
    ]
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == len(list((tmp_path / "figures").glob("*.png"))) == 4
    assert "http" not in page
    assert "None was found." in page
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *TABLES[:1],
        "figures",
        TABLES[1],
        "report.html",
        TABLES[2],
    ]


def test_every_fault_is_found_and_the_rest_is_looked_at(spoiled, tmp_path, capsys):
    assert command("explore", f"input={spoiled}", f"output={tmp_path}", *WORDS, "listed=3") == 0
    found = {(row["problem"], row["file"], row["row"]) for row in read(tmp_path / "problems.csv")}
    mirrored = ("does not belong", "CurveFault_B/seis6_1_1.npy", "0")  # its gathers are those of the map before
    assert found == {
        ("does not belong", "FlatVel_A/data/data1.npy", "0"),
        ("does not belong", "FlatVel_A/data/data1.npy", "1"),
        ("not finite", "FlatVel_A/data/data2.npy", "1"),
        ("constant", "FlatVel_A/data/data3.npy", "0"),
        ("unreadable", "FlatVel_A/data/data4.npy", ""),
        ("out of range", "FlatVel_A/model/model5.npy", "1"),
        ("does not belong", "CurveFault_B/seis7_1_0.npy", "0"),
        ("duplicate", "CurveFault_B/seis8_1_0.npy", "1"),
        ("duplicate", "CurveFault_B/vel8_1_0.npy", "1"),
        ("mirror image", "CurveFault_B/vel6_1_1.npy", "0"),
        mirrored,
    }
    copies = [row for row in read(tmp_path / "problems.csv") if row["other_file"].startswith("CurveFault_B/seis6")]
    assert [(row["other_row"], row["across_folds"]) for row in copies] == [("0", "True")]
    printed = capsys.readouterr().out
    assert "11 problems found" in printed
    assert "problems.csv lists all" in printed
    assert "unreadable: FlatVel_A/data/data4.npy: is cut short" in printed
    rows = {row["family"]: row for row in read(tmp_path / "families.csv")}
    assert (rows["FlatVel_A"]["read"], rows["CurveFault_B"]["read"]) == ("8", "10")
    assert "FlatVel_A/data/data1.npy, rows 0-1" in (tmp_path / "report.html").read_text()


def test_what_cannot_be_looked_at(survey, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/data1.npy").write_text("hello")
    for words, message in (
        ([f"input={tmp_path / 'none'}"], "none does not exist"),
        ([f"input={tmp_path / 'empty'}"], "holds no .npy files"),
        ([f"input={tmp_path / 'broken'}"], "holds no file of gathers that can be read"),
        ([f"input={survey}", "folds=1"], "folds must be a whole number, at least 2, got 1"),
        ([f"input={survey}", "listed=-1"], "listed must be a whole number, at least 0, got -1"),
        ([f"input={survey}", "scan=all"], "scan must be a whole number, at least 1, got all"),
        (["input=x", "maps=2"], "there is no setting 'maps'"),
    ):
        assert command("explore", *words, f"output={tmp_path / 'out'}") == 1
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
