"""Tables carry the right numbers; pages are whole, escaped, and fetch nothing."""

import csv
import dataclasses
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rich.console

from fwi_lightning.errors import UserError
from fwi_lightning.figures.answer import answer
from fwi_lightning.figures.changes import Change
from fwi_lightning.figures.histograms import count_velocities
from fwi_lightning.report import (
    Example,
    PredictionReport,
    RunReport,
    RunSummary,
    family_html,
    family_table,
    read_metrics,
    write_csv,
    write_family_csv,
    write_prediction_report,
    write_run_report,
)
from fwi_lightning.report.page import Code, Headline, Section, write_page
from fwi_lightning.report.prediction import _answered
from fwi_lightning.report.run import count, duration
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=20, shots=3, samples=50)
SCORES = {"samples": 8, "mae": 50.25, "rmse": 80.125, "ssim": 0.9, "boundary_iou": 0.5}
ROWS = {
    "all": SCORES | {"samples": 16, "mae": 75.0},
    "FlatVel_A": SCORES,
    "<b>x</b>": SCORES | {"mae": 99.75},
}
BASELINE = {name: SCORES | {"mae": mae} for name, mae in {"FlatVel_A": 201.0, "<b>x</b>": 133.0, "all": 300.0}.items()}
EVIL = "<b>x</b><script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text; checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path: Path) -> Page:
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert "http://" not in text
    assert "https://" not in text
    assert not {"script", "link", "iframe"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    return page


def examples(names, truth=True):
    rng = np.random.default_rng(0)
    velocity = np.where(np.arange(20)[:, None] < 9, 2000.0, 3000.0) * np.ones((1, 20, 30), np.float32)
    for number, name in enumerate(names):
        records = rng.normal(size=SURVEY.gathers_shape)
        yield Example(f"{name} #{number}", name, records, velocity + 10 * number, velocity if truth else None)


def terminal(table) -> str:
    console = rich.console.Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_family_table_has_the_ratio_to_the_mean_map_and_all_last():
    lines = [line.split() for line in terminal(family_table(ROWS, BASELINE)).splitlines() if line.strip()]
    flat, odd, overall = lines[-3:]
    assert flat == ["FlatVel_A", "8", "50.2", "80.1", "0.900", "0.500", "201.0", "0.25"]
    assert odd[-1] == "0.75"
    assert overall[0] == "all"
    assert overall[-2:] == ["300.0", "0.25"]
    assert len(family_table(ROWS).columns) == 6


def test_family_names_fit_a_terminal_of_80_columns():
    wide = {"CurveFault_A": SCORES, "all": SCORES}
    text = terminal(family_table(wide, wide))
    assert "CurveFault_A" in text
    assert "…" not in text


def test_family_html_has_the_same_cells_escaped():
    page = Page(family_html(ROWS, BASELINE))
    assert page.tags.count("tr") == 4
    assert "b" not in page.tags
    assert {"<b>x</b>", "0.75", "MAE / mean map"} <= set(page.text)


def test_family_csv_gives_back_every_digit(tmp_path):
    rows = {"FlatVel_A": SCORES | {"mae": np.float64(1) / 3}, "all": SCORES}
    write_family_csv(tmp_path / "per_family.csv", rows, BASELINE)
    with (tmp_path / "per_family.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == [
        "family",
        *SCORES,
        "mean_map_mae",
        "mae_ratio",
    ]
    assert float(read[0]["mae"]) == 1 / 3
    assert float(read[0]["mae_ratio"]) == 1 / 3 / 201
    assert read[1]["family"] == "all"
    assert list(tmp_path.iterdir()) == [tmp_path / "per_family.csv"]  # no temporary file stays


def test_csv_of_samples_leaves_missing_cells_blank(tmp_path):
    write_csv(tmp_path / "per_sample.csv", [{"name": 'a,"b"', "misfit": None}, {"name": "c", "flags": "x"}])
    with (tmp_path / "per_sample.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "misfit", "flags"], ['a,"b"', "", ""], ["c", "", "x"]]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x\.csv cannot be written"):
        write_csv(tmp_path / "file" / "x.csv", [])


def test_read_metrics_leaves_out_blank_cells(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/mae\n0,9,0.5,\n0,9,,321.5\n")
    assert read_metrics(path) == [
        {"epoch": 0.0, "step": 9.0, "train/loss": 0.5},
        {"epoch": 0.0, "step": 9.0, "val/mae": 321.5},
    ]
    assert read_metrics(tmp_path / "none.csv") == []


def test_page_escapes_everything(tmp_path):
    blocks = [EVIL, (Headline(EVIL, EVIL, EVIL),), Code(EVIL, EVIL)]
    write_page(tmp_path / "page.html", EVIL, [Section(EVIL, blocks)], subtitle=EVIL)
    page = read_page(tmp_path / "page.html")
    # title, h1, subtitle, h2, paragraph, three of the headline, two of the code
    assert page.text.count(EVIL) == 10


def run_report(**changes) -> RunReport:
    settings = {
        "title": EVIL,
        "summary": RunSummary(training_samples=800, validation_samples=16, parameters=1_234_567, seconds=320.0),
        "rows": ROWS,
        "baseline_rows": BASELINE,
        "metrics": [{"step": 1, "epoch": 0, "train/loss": 0.5}, {"step": 1, "epoch": 0, "val/mae": 75.0}],
        "examples": list(examples(["FlatVel_A", EVIL])),
        "config": {"model": {"_target_": EVIL}},
        "environment": {"torch": "2.8", "commit": EVIL},
        "survey": SURVEY,
    }
    return RunReport(**settings | changes)


def test_run_report_tells_all_in_one_small_file(tmp_path):
    path = write_run_report(tmp_path, run_report())
    page = read_page(path)
    assert path == tmp_path / "report.html"
    assert path.stat().st_size < 3e6
    names = ["best", "boundaries", "curves", "families", "gallery", "worst"]
    assert sorted(file.stem for file in (tmp_path / "figures").glob("*")) == names
    assert page.tags.count("img") == len(names)
    assert {"75.0 m/s", "0.25 of the mean map's 300.0", "1.23 M", "5 min 20 s"} <= set(page.text)
    assert any("The worst of the 2 samples drawn for this report, MAE 10.0 m/s" in text for text in page.text)
    assert f"model:\n  _target_: {EVIL}\n" in page.text


def test_run_report_without_examples_leaves_their_sections_out(tmp_path):
    page = read_page(write_run_report(tmp_path, run_report(examples=[], metrics=[])))
    assert page.tags.count("img") == 2
    assert "Samples" not in page.text


def test_run_report_shows_augmented_pairs(tmp_path):
    (example,) = examples(["FlatVel_A"])
    change = Change(EVIL, example.truth, example.gathers, example.prediction, example.gathers)
    page = read_page(write_run_report(tmp_path, run_report(augmented=[change])))
    assert (tmp_path / "figures" / "augmented.png").is_file()
    assert "Augmented pairs" in page.text


def prediction_report(samples, **changes) -> PredictionReport:
    quality = [{"name": f"{number:04d}", "index": 0, "misfit": number / 1e4, "flags": ""} for number in range(samples)]
    quality[2]["flags"] = "clipped"
    counts = count_velocities(np.full((samples, 10), 2000.0))
    return PredictionReport(EVIL, samples, quality, counts, survey=SURVEY, **changes)


def test_prediction_report_of_five_samples_with_truth(tmp_path):
    scores = [
        {"name": f"{n}", "index": 0, "mae": 10.0 * n, "rmse": 20.0, "ssim": 0.5, "boundary_iou": 1.0} for n in range(5)
    ]
    drawn = list(examples(["a", "b"]))
    page = read_page(write_prediction_report(tmp_path, prediction_report(5, scores=scores, examples=drawn)))
    assert page.tags.count("img") == 1 + 2
    assert {"Velocity of 5 samples", "20.0 m/s", "The largest errors first:", "clipped", EVIL} <= set(page.text)
    assert page.text.index("4") < page.text.index("3")  # the largest error stands first


def test_prediction_report_of_thousands_lists_and_draws_a_few(tmp_path, monkeypatch):
    monkeypatch.setattr("fwi_lightning.report.prediction.DRAWN", 2)
    report = prediction_report(3000, examples=list(examples(["a"] * 4, truth=False)))
    page = read_page(write_prediction_report(tmp_path, report))
    assert page.tags.count("img") == 1 + 2
    assert page.tags.count("tr") == (1 + 20) + (1 + 1) + (1 + 1)  # samples, flags, what was predicted
    cells = [text for text in page.text if text in ("0002", "2999", "2998")]
    assert cells == ["0002", "2999", "2998"]  # flagged first, then by misfit


def test_prediction_report_without_simulation_has_no_misfit(tmp_path):
    report = prediction_report(3)
    for row in report.quality:
        row["misfit"] = None
    page = read_page(write_prediction_report(tmp_path, report))
    assert "median misfit" not in page.text


@pytest.mark.parametrize(
    ("number", "text"), [(1234, "1,234"), (56_700, "56.7 k"), (999_999, "1 M"), (8_900_000, "8.9 M")]
)
def test_count(number, text):
    assert count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (59.7, "1 min 0 s"), (11_400, "3 h 10 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_prediction_report_tells_steps_families_and_flags(tmp_path):
    report = prediction_report(4)
    for number, row in enumerate(report.quality):
        row |= {"misfit_network": 0.2, "misfit_crf": 0.1 if number else 0.4, "seconds_crf": 2.0, "expected_mae": 50.0}
    changed = dataclasses.replace(report, families=["FlatVel_A", "FlatVel_A", "Style_B", ""])
    page = read_page(write_prediction_report(tmp_path, changed))
    assert {"What each step changed", "-12 %", "75 %", "Families", "unknown", "Flags", "expected MAE"} <= set(page.text)


def test_an_answer_is_drawn_with_all_that_is_known(tmp_path):
    (example,) = examples(["a"])
    history = np.column_stack([np.arange(5.0), 0.5 ** np.arange(5)])
    whole = dataclasses.replace(
        example,
        before=example.truth + 5,
        uncertainty=np.full_like(example.truth, 30.0),
        record=0.9 * example.gathers,
        history=history,
        facts="no flag",
    )
    figure = answer(_answered(whole), SURVEY, "title", whole.facts)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:8] == [
        "the network's map",
        "answer",
        "true velocity",
        "error: MAE 0 m/s",
        "uncertainty",
        "recorded, shot 2",
        "simulated",
        "difference",
    ]
    difference = figure.axes[7].collections[0].get_array()
    np.testing.assert_allclose(difference, 0.1 * example.gathers[1], rtol=1e-6)
    alone = answer(_answered(dataclasses.replace(example, truth=None)), SURVEY)
    assert [axis.get_title() for axis in alone.axes][:2] == ["answer", "shot 1 of 3"]
