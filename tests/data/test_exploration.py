"""Faults that were planted are found where they are; sound data give no problem."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_lightning.data.exploration import KINDS, Effort, explore, group
from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(30, depth=30, shots=3, samples=250, sponge=20)
EFFORT = Effort(folds=3, near_gathers=0.01)
MARMOUSI = Path(__file__).parents[1] / "physics" / "marmousi"
SAMPLES = 6  # in a file


def layers(generator: np.random.Generator) -> np.ndarray:
    """A map of layers that rise to one side: no two alike, none its own mirror image."""
    depth, across = np.mgrid[:30, :30]
    tilt = generator.uniform(0.1, 0.5)
    number = ((depth + tilt * across) / generator.uniform(6, 12)).astype(int)
    return generator.integers(1500, 4500, 8)[number].astype(np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Two families in Kaggle's layout, three files each."""
    root = tmp_path_factory.mktemp("sound")
    generator = np.random.default_rng(0)
    for family in ("FlatVel_A", "Style_B"):
        for number in (1, 2, 3):
            maps = np.stack([layers(generator) for _ in range(SAMPLES)])
            gathers = simulate(torch.from_numpy(maps), SURVEY).numpy()
            for word, array in (("data", gathers), ("model", maps[:, None])):
                path = root / family / word / f"{word}{number}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
    return root


@pytest.fixture
def data(sound, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


GATHERS, MODEL = "FlatVel_A/data/data1.npy", "FlatVel_A/model/model1.npy"
OTHERS, OTHER_MODEL = "FlatVel_A/data/data3.npy", "FlatVel_A/model/model3.npy"


def spoil(root: Path, file: str, row: int | slice, change) -> None:
    array = np.load(root / file)
    array[row] = change(array[row])
    np.save(root / file, array)


def found(root: Path, survey: Survey = SURVEY, effort: Effort = EFFORT) -> list[tuple[str, str, int | None]]:
    problems = explore(root, survey, effort).problems
    assert all(problem.kind in KINDS and problem.sentence.endswith(".") for problem in problems)
    return [(problem.kind, problem.file, problem.row) for problem in problems]


def test_sound_data_have_no_problem(sound, capsys):
    result = explore(sound, SURVEY, EFFORT)
    assert result.problems == []
    assert result.remarks == []
    assert [(family.name, family.files, family.read) for family in result.families] == [
        ("FlatVel_A", 3, 18),
        ("Style_B", 3, 18),
    ]
    assert len(result.comparisons) == 4
    assert max(comparison.rms for comparison in result.comparisons) < 1e-5
    assert "36/36 samples" in capsys.readouterr().out


def test_the_numbers_are_those_of_all_values(sound):
    row = explore(sound, SURVEY, EFFORT).family_rows()[0]
    for word, name in (("data", "gathers"), ("model", "velocity")):
        values = np.concatenate([np.load(path) for path in (sound / "FlatVel_A" / word).iterdir()]).astype(float)
        assert (row[f"{name}_min"], row[f"{name}_max"]) == (values.min(), values.max())
        assert row[f"{name}_mean"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-6)
        assert row[f"{name}_std"] == pytest.approx(values.std(), rel=1e-4)
    family = explore(sound, SURVEY, EFFORT).families[0]
    maps = np.concatenate([np.load(path) for path in (sound / "FlatVel_A/model").iterdir()])[:, 0].astype(float)
    np.testing.assert_allclose(family.profile[0], maps.mean(axis=(0, 2)))
    np.testing.assert_allclose(family.profile[1], maps.transpose(1, 0, 2).reshape(30, -1).std(axis=1), rtol=1e-6)
    jumps = np.zeros(maps.shape, bool)
    down, right = np.abs(np.diff(maps, axis=1)) > 100, np.abs(np.diff(maps, axis=2)) > 100
    for part, jump in ((np.s_[:, 1:], down), (np.s_[:, :-1], down), (np.s_[..., 1:], right), (np.s_[..., :-1], right)):
        jumps[part] |= jump
    np.testing.assert_allclose(family.boundary_density, jumps.mean(axis=(0, 2)))


def test_float16_zeroed_ends_and_other_orders_are_sound(data):
    for number in (1, 2, 3):
        path = data / f"FlatVel_A/data/data{number}.npy"
        gathers = np.load(path)
        gathers[:, :, -1] = 0
        np.save(path, np.asfortranarray(gathers.astype(np.float16)))
    result = explore(data, SURVEY, EFFORT)
    assert result.problems == []
    assert [remark for remark in result.remarks if "last time sample is stored as zeros in 18 of 18" in remark]
    assert {(row["type"], row["order"]) for row in result.files} == {("float32", "C"), ("float16", "Fortran")}


class TestSamples:
    def test_not_finite(self, data):
        spoil(data, GATHERS, (2, 1, 30, 4), lambda _: np.nan)
        spoil(data, MODEL, (3, 0, 5, 5), lambda _: np.inf)
        assert found(data) == [("not finite", GATHERS, 2), ("not finite", MODEL, 3)]

    def test_constant(self, data):
        spoil(data, GATHERS, (4, 1), lambda _: 0)
        spoil(data, OTHERS, 5, lambda _: 3)
        spoil(data, MODEL, 0, lambda _: 2000)
        assert found(data) == [("constant", GATHERS, 4), ("constant", OTHERS, 5), ("constant", MODEL, 0)]

    def test_kilometres_a_second(self, data):
        spoil(data, MODEL, 2, lambda velocity: velocity / 1000)
        (problem,) = explore(data, SURVEY, EFFORT).problems
        assert (problem.kind, problem.file, problem.row) == ("out of range", MODEL, 2)
        assert "look like km/s" in problem.sentence


class TestPairs:
    @pytest.mark.parametrize("simulated", [2, 0])
    def test_swapped(self, data, simulated):
        spoil(data, GATHERS, [1, 4], lambda gathers: gathers[::-1])
        result = explore(data, SURVEY, Effort(folds=3, simulate_per_family=simulated))
        assert [(p.kind, p.file, p.row) for p in result.problems] == [
            ("does not belong", GATHERS, row) for row in (1, 4)
        ]
        if simulated:
            assert "belong to the velocity in row 4 of the same file" in result.problems[0].sentence
            assert "belong to the velocity in row 1 of the same file" in result.problems[1].sentence

    def test_swapped_between_files(self, data):
        one, other = np.load(data / GATHERS), np.load(data / OTHERS)
        spoil(data, GATHERS, 0, lambda _: other[5])
        spoil(data, OTHERS, 5, lambda _: one[0])
        first, second = explore(data, SURVEY, EFFORT).problems
        assert (first.file, first.row) == (GATHERS, 0)
        assert f"belong to the velocity in {OTHER_MODEL}, row 5" in first.sentence
        assert (second.file, second.row) == (OTHERS, 5)

    def test_all_rows_moved_on(self, data):
        spoil(data, GATHERS, slice(None), lambda gathers: np.roll(gathers, 1, axis=0))
        result = explore(data, SURVEY, EFFORT)
        assert [problem.row for problem in result.problems] == list(range(SAMPLES))
        (line,) = group(result.problems)
        assert line.place == f"{GATHERS}, rows 0-5"

    @pytest.mark.parametrize(
        ("shift", "words"), [(7, r"7 time samples (7 ms) late"), (-1, r"1 time sample (1 ms) early")]
    )
    def test_shifted_in_time(self, data, shift, words):
        def move(gathers):
            padded = np.pad(gathers, ((0, 0), (10, 10), (0, 0)))
            return padded[:, 10 - shift : 260 - shift]

        spoil(data, GATHERS, 3, move)
        (problem,) = explore(data, SURVEY, EFFORT).problems
        assert (problem.kind, problem.file, problem.row) == ("does not belong", GATHERS, 3)
        assert words in problem.sentence

    def test_louder(self, data):
        spoil(data, GATHERS, 3, lambda gathers: 2 * gathers)
        (problem,) = explore(data, SURVEY, EFFORT).problems
        assert (problem.kind, problem.file, problem.row) == ("does not belong", GATHERS, 3)
        assert "2 times as loud" in problem.sentence

    def test_all_records_filtered_or_of_another_survey(self, data):
        for path in data.rglob("data*.npy"):
            spoil(data, path.relative_to(data), slice(None), lambda gathers: np.roll(gathers, 40, axis=2))
        result = explore(data, SURVEY, EFFORT)
        assert result.problems[0].kind == "other survey"
        assert "begins at sample 40" in result.problems[0].sentence
        assert {problem.kind for problem in result.problems[1:]} == {"does not belong"}


class TestCopies:
    def test_across_folds(self, data):
        for file, other in ((GATHERS, OTHERS), (MODEL, OTHER_MODEL)):
            first = np.load(data / file)[1]
            spoil(data, other, 4, lambda _, first=first: first)
        result = explore(data, SURVEY, EFFORT)
        assert [(p.kind, p.file, p.row, p.other_file, p.other_row, p.across_folds) for p in result.problems] == [
            ("duplicate", OTHERS, 4, GATHERS, 1, True),
            ("duplicate", OTHER_MODEL, 4, MODEL, 1, True),
        ]

    def test_within_a_fold(self, data):
        for file in (GATHERS, MODEL):
            first = np.load(data / file)[1]
            spoil(data, file, 4, lambda _, first=first: first)
        result = explore(data, SURVEY, EFFORT)
        assert [(p.kind, p.row, p.across_folds) for p in result.problems] == [("duplicate", 4, False)] * 2

    def test_almost_the_same(self, data):
        generator = np.random.default_rng(1)
        maps, gathers = np.load(data / MODEL)[1], np.load(data / GATHERS)[1]
        spoil(data, OTHER_MODEL, 4, lambda old: maps + generator.normal(0, 3, old.shape))
        noise = 0.003 * np.sqrt(np.mean(gathers**2))
        spoil(data, OTHERS, 4, lambda old: gathers * 3 + generator.normal(0, noise, old.shape))
        problems = [p for p in explore(data, SURVEY, EFFORT).problems if p.kind == "near-duplicate"]
        assert [(p.file, p.row, p.other_file, p.other_row) for p in problems] == [
            (OTHERS, 4, GATHERS, 1),
            (OTHER_MODEL, 4, MODEL, 1),
        ]

    @pytest.mark.parametrize("noise", [0, 4])
    def test_mirror_images(self, data, noise):
        maps, gathers = np.load(data / MODEL)[1], np.load(data / GATHERS)[1]
        generator = np.random.default_rng(2)
        spoil(data, OTHER_MODEL, 4, lambda old: maps[..., ::-1] + generator.normal(0, noise, old.shape))
        spoil(data, OTHERS, 4, lambda _: gathers[::-1, :, ::-1])
        problems = [p for p in explore(data, SURVEY, EFFORT).problems if p.kind == "mirror image"]
        assert [(p.file, p.row, p.other_file, p.other_row) for p in problems] == [
            (OTHERS, 4, GATHERS, 1),
            (OTHER_MODEL, 4, MODEL, 1),
        ]


class TestFiles:
    def test_one_cut_short_does_not_stop_the_rest(self, data):
        os.truncate(data / GATHERS, 5000)
        spoil(data, OTHERS, (2, 1, 30, 4), lambda _: np.nan)
        result = explore(data, SURVEY, EFFORT)
        assert [(p.kind, p.file, p.row) for p in result.problems] == [
            ("unreadable", GATHERS, None),
            ("not finite", OTHERS, 2),
        ]
        assert "cut short" in result.problems[0].sentence
        assert [family.read for family in result.families] == [12, 18]

    def test_a_broken_label_leaves_the_gathers(self, data):
        (data / MODEL).write_text("version https://git-lfs")
        np.save(data / OTHER_MODEL, np.zeros((SAMPLES, 1, 20, 20), np.float32))
        result = explore(data, SURVEY, EFFORT)
        assert [(p.kind, p.file) for p in result.problems] == [("unreadable", MODEL), ("unreadable", OTHER_MODEL)]
        assert (result.families[0].heard, result.families[0].maps) == (18, 6)

    def test_a_pair_without_its_other_half(self, data):
        (data / MODEL).unlink()
        (data / OTHERS).unlink()
        result = explore(data, SURVEY, EFFORT)
        assert [(p.kind, p.file) for p in result.problems] == [("no partner", GATHERS), ("no partner", OTHER_MODEL)]
        assert str(data) not in result.problems[0].sentence
        assert result.families[0].read == 12

    def test_no_labels_at_all(self, data):
        for path in data.rglob("model*.npy"):
            path.unlink()
        result = explore(data, SURVEY, EFFORT)
        assert result.problems == []
        assert result.remarks == ["There are no velocity files: gathers alone were looked at."]
        assert result.family_rows()[0]["velocity_mean"] is None

    def test_nothing_that_can_be_read(self, tmp_path):
        (tmp_path / "data1.npy").write_text("hello")
        with pytest.raises(
            UserError, match=r"holds no file of gathers that can be read; the first one: \S+data1\.npy "
        ):
            explore(tmp_path, SURVEY)


def test_other_families_and_few_files_are_named(data):
    (data / "FlatVel_A").rename(data / "salt")
    result = explore(data, SURVEY, Effort(folds=4))
    assert result.problems == []
    assert [remark.partition(":")[0] for remark in result.remarks] == ["salt", "Style_B and salt"]
    result = explore(data, SURVEY, Effort(folds=19))
    assert [remark for remark in result.remarks if "salt has 18 samples, fewer than folds=19" in remark]


def test_a_part_of_the_samples(sound):
    result = explore(sound, SURVEY, Effort(scan=5, folds=3, max_samples=2))
    assert [(family.samples, family.read, family.spectra) for family in result.families] == [(18, 5, 2)] * 2
    assert result.remarks == ["scan=5: 10 of 36 samples were read."]


def test_what_another_group_recorded_has_no_problem(tmp_path):
    survey = Survey(
        grid=(70, 190), shot_columns=(0, 47, 94, 142, 189), receiver_columns=tuple(range(0, 190, 5)), samples=999
    )
    for name, word in (("gathers", "data"), ("velocity", "model")):
        shutil.copy(MARMOUSI / f"{name}.npy", tmp_path / f"{word}1.npy")
    result = explore(tmp_path, survey)
    assert result.problems == []
    assert result.comparisons[0].rms < 1e-4


@pytest.mark.parametrize(
    ("setting", "value"),
    [("scan", 0), ("max_samples", 0), ("simulate_per_family", -1), ("folds", 1), ("near_gathers", -1), ("seed", "x")],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(UserError, match=f"{setting} must be a .*number, at least .*, got {value}"):
        Effort(**{setting: value})
