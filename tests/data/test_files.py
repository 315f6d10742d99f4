from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from fwi_lightning.data import find_parts
from fwi_lightning.data.files import family_of
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI, Survey


def save(path, shape, dtype=np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones(shape, dtype))
    return path


class TestLayouts:
    def test_kaggle(self, kaggle, survey):
        parts = find_parts(kaggle, survey=survey)
        assert len(parts) == 20
        assert {part.family for part in parts} == set(FAMILIES)
        assert {part.samples for part in parts} == {10}
        assert {part.shape for part in parts} == {(2, 8, 6)}
        by_name = {part.name: part for part in parts}
        assert by_name["FlatVel_B/data/data2"].velocity == kaggle / "FlatVel_B/model/model2.npy"
        assert by_name["CurveFault_B/seis8_1_0"].velocity == kaggle / "CurveFault_B/vel8_1_0.npy"

    def test_one_family(self, kaggle, survey):
        for root in (kaggle / "FlatVel_A", kaggle / "FlatVel_A" / "data", kaggle / "FlatVel_A" / "data" / "data1.npy"):
            if root.name == "data":  # its velocity lies outside, and is found
                parts = find_parts(root, survey=survey, labels=False)
            else:
                parts = find_parts(root, survey=survey)
                assert parts[0].velocity == kaggle / "FlatVel_A/model/model1.npy"
            assert {part.family for part in parts} == {"FlatVel_A"}
            assert len(parts) == (1 if root.is_file() else 2)

    def test_natural_order(self, tmp_path, survey, pair):
        for number in (10, 2, 1):
            pair(tmp_path / f"data{number}.npy", tmp_path / f"model{number}.npy", 1)
        assert [part.name for part in find_parts(tmp_path, survey=survey)] == ["data1", "data2", "data10"]

    def test_kaggle_test_folder(self, tmp_path):
        for name in ("000039dca2", "00001e8ee1"):
            save(tmp_path / "test" / f"{name}.npy", (5, 1000, 70))
        parts = find_parts(tmp_path / "test", labels=False)
        assert [(part.name, part.samples, part.velocity) for part in parts] == [
            ("00001e8ee1", 1, None),
            ("000039dca2", 1, None),
        ]

    def test_a_bare_file(self, tmp_path):
        path = save(tmp_path / "shot.npy", (5, 1000, 70))
        (part,) = find_parts(path, labels=False)
        assert (part.family, part.name, part.gathers) == ("unknown", "shot", path)

    def test_hidden_files_and_links(self, tmp_path, survey, pair):
        real = tmp_path / "elsewhere"
        pair(real / "data1.npy", real / "model1.npy", 1)
        root = tmp_path / "root"
        root.mkdir()
        (root / "Style_B").symlink_to(real)
        (root / "loop").symlink_to(root)
        (root / "._data1.npy").write_bytes(b"macOS")
        (root / ".cache").mkdir()
        (root / ".cache" / "x.npy").write_bytes(b"something")
        assert [part.family for part in find_parts(root, survey=survey)] == ["Style_B"]

    def test_a_path_relative_to_the_working_directory(self, kaggle, survey, monkeypatch):
        monkeypatch.chdir(kaggle / "Style_A")
        assert {part.family for part in find_parts(".", survey=survey)} == {"Style_A"}


class TestFamilies:
    @pytest.mark.parametrize(
        ("path", "family"),
        [
            ("FlatVel_A/data/data1.npy", "FlatVel_A"),
            ("curvefault-b_train/seis6_1_0.npy", "CurveFault_B"),
            ("Style_A/more/data1.npy", "Style_A"),
            ("salt/data/data1.npy", "salt"),
            ("data/data1.npy", "root"),
            ("data1.npy", "root"),
        ],
    )
    def test_from_the_folder(self, tmp_path, path, family):
        root = tmp_path / "root"
        assert family_of(root / path, root) == family

    def test_folders_above_the_root_do_not_count(self, tmp_path):
        root = tmp_path / "FlatVel_A" / "mine"
        assert family_of(root / "data1.npy", root) == "mine"
        assert family_of(root / "data" / "data1.npy", root / "data") == "mine"


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "samples"),
        [
            ((5, 1000, 70), 1),
            ((1, 5, 1000, 70), 1),
            ((3, 5, 1000, 70), 3),
            ((3, 1, 5, 1000, 70), 3),
            ((5, 1000, 70, 1), 1),
            ((1, 3, 5, 1000, 70, 1), 3),
        ],
    )
    def test_gathers(self, tmp_path, shape, samples):
        (part,) = find_parts(save(tmp_path / "a.npy", shape), labels=False)
        assert (part.samples, part.shape) == (samples, (5, 1000, 70))

    @pytest.mark.parametrize("shape", [(70, 70), (1, 70, 70), (1, 1, 70, 70), (70, 70, 1)])
    def test_one_map(self, tmp_path, shape):
        save(tmp_path / "data1.npy", (5, 1000, 70))
        save(tmp_path / "model1.npy", shape)
        assert find_parts(tmp_path)[0].samples == 1

    @pytest.mark.parametrize("shape", [(2, 70, 70), (2, 1, 70, 70)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16])
    def test_two_maps(self, tmp_path, shape, dtype):
        save(tmp_path / "data1.npy", (2, 5, 1000, 70))
        save(tmp_path / "model1.npy", shape, dtype)
        assert find_parts(tmp_path)[0].samples == 2

    def test_any_number_of_receivers(self, tmp_path):
        save(tmp_path / "seis1.npy", (2, 5, 1000, 190))
        save(tmp_path / "vel1.npy", (2, 1, 70, 190))
        assert find_parts(tmp_path, survey=Survey.surface(190))[0].shape == (5, 1000, 190)
        assert find_parts(tmp_path, any_width=True)[0].shape == (5, 1000, 190)
        with pytest.raises(UserError, match="190 receivers where the survey has 70"):
            find_parts(tmp_path)

    def test_a_survey_with_one_shot(self, tmp_path):
        one = Survey(shot_columns=(34,))
        (part,) = find_parts(save(tmp_path / "a.npy", (4, 1, 1000, 70)), survey=one, labels=False)
        assert (part.samples, part.shape) == (4, (1, 1000, 70))


class TestErrors:
    def test_no_such_root(self, tmp_path):
        with pytest.raises(UserError, match=r"nowhere does not exist: name a folder"):
            find_parts(tmp_path / "nowhere")

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(UserError, match=r"holds no \.npy files: name the folder"):
            find_parts(tmp_path)

    def test_gathers_without_velocity(self, tmp_path):
        save(tmp_path / "FlatVel_A/data/data1.npy", (1, 5, 1000, 70))
        with pytest.raises(
            UserError, match=r"data1\.npy has no velocity file: add \S*model1\.npy or \S*model/model1\.npy"
        ):
            find_parts(tmp_path)

    def test_velocity_without_gathers(self, tmp_path):
        save(tmp_path / "seis2_1_0.npy", (1, 5, 1000, 70))
        save(tmp_path / "vel2_1_0.npy", (1, 1, 70, 70))
        save(tmp_path / "vel2_1_1.npy", (1, 1, 70, 70))
        with pytest.raises(UserError, match=r"vel2_1_1\.npy has no file of gathers beside it: add its seismic file"):
            find_parts(tmp_path)
        assert len(find_parts(tmp_path, labels=False)) == 1

    def test_velocity_only(self, tmp_path):
        save(tmp_path / "model1.npy", (1, 1, 70, 70))
        with pytest.raises(UserError, match=r"holds velocity files only, such as model1\.npy, and no gathers"):
            find_parts(tmp_path, labels=False)

    def test_test_files_have_no_labels(self, tmp_path):
        save(tmp_path / "000039dca2.npy", (5, 1000, 70))
        with pytest.raises(UserError, match=r"000039dca2\.npy has no velocity labels.*use predict\.py"):
            find_parts(tmp_path)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((5, 1000), r"has shape \(5, 1000\): gathers must be \(5, 1000, 70\) or \(N, 5, 1000, 70\)"),
            ((70, 1000, 5), r"70 shots where the survey has 5 and 5 receivers where the survey has 70"),
            ((2, 5, 500, 70), r"500 time samples where the survey has 1000: set the survey to the one that"),
            ((2, 3, 5, 1000, 70), r"\(2, 3, 5, 1000, 70\).*save them in that order"),
            ((0, 5, 1000, 70), "holds no samples"),
            ((), r"has shape \(\)"),
        ],
    )
    def test_wrong_shapes(self, tmp_path, shape, message):
        with pytest.raises(UserError, match=message):
            find_parts(save(tmp_path / "a.npy", shape), labels=False)

    @pytest.mark.parametrize("dtype", [np.complex64, np.int16, np.bool_, "U3"])
    def test_wrong_types_of_gathers(self, tmp_path, dtype):
        with pytest.raises(UserError, match=r"holds \S+ values: gathers must be float32 or float16"):
            find_parts(save(tmp_path / "a.npy", (5, 1000, 70), dtype), labels=False)

    def test_objects(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(UserError, match="Python objects"):
            find_parts(tmp_path, labels=False)

    def test_wrong_type_of_velocity(self, tmp_path):
        save(tmp_path / "data1.npy", (5, 1000, 70))
        save(tmp_path / "model1.npy", (70, 70), np.complex64)
        with pytest.raises(UserError, match=r"model1\.npy holds complex64 values: velocity must be"):
            find_parts(tmp_path)

    def test_labels_on_another_grid(self, tmp_path):
        save(tmp_path / "data1.npy", (5, 1000, 70))
        save(tmp_path / "model1.npy", (1, 1, 100, 100))
        with pytest.raises(
            UserError, match=r"\(1, 1, 100, 100\): velocity maps on this survey's grid must be \(70, 70\)"
        ):
            find_parts(tmp_path)

    def test_different_numbers_of_samples(self, tmp_path):
        save(tmp_path / "data1.npy", (3, 5, 1000, 70))
        save(tmp_path / "model1.npy", (2, 1, 70, 70))
        with pytest.raises(
            UserError, match=r"model1\.npy holds 2 samples and \S+data1\.npy 3: the two files of a pair"
        ):
            find_parts(tmp_path)

    def test_a_file_cut_short_is_found_at_once(self, tmp_path):
        path = save(tmp_path / "data1.npy", (3, 5, 1000, 70))
        save(tmp_path / "model1.npy", (3, 1, 70, 70))
        os.truncate(path, 1_000_000)
        with pytest.raises(UserError, match=r"data1\.npy is cut short"):
            find_parts(tmp_path)

    def test_something_else_named_npy(self, tmp_path):
        (tmp_path / "a.npy").write_text("version https://git-lfs")
        with pytest.raises(UserError, match=r"a\.npy is not a \.npy file: it starts with b'versio'"):
            find_parts(tmp_path, labels=False)


def test_a_scan_reads_headers_only(tmp_path):
    # 2,000 files that claim 1.4 MB each are sparse: reading them would take 2.8 GB.
    header = tmp_path / "header"
    save(tmp_path / "full.npy", OPENFWI.gathers_shape)
    shutil.move(tmp_path / "full.npy", header)
    start = header.read_bytes()[:128]
    folder = tmp_path / "test"
    folder.mkdir()
    for number in range(2000):
        with (folder / f"{number:010x}.npy").open("wb") as file:
            file.write(start)
            file.truncate(header.stat().st_size)
    parts = find_parts(folder, labels=False)
    assert len(parts) == 2000
    assert sum(path.stat().st_blocks for path in folder.iterdir()) * 512 < 50_000_000
