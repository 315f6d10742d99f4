from __future__ import annotations

import pytest

from fwi_lightning.data import find_parts
from fwi_lightning.errors import UserError

AUTHORS = "/projects/piml_inversion/FWIOpenData"


@pytest.fixture
def openfwi(tmp_path, pair):
    """Part of the full data set: two families of Vel, one of Fault."""
    root = tmp_path / "openfwi"
    for family in ("FlatVel_A", "FlatVel_B"):
        for number in (48, 49, 50):
            pair(root / family / f"data/data{number}.npy", root / family / f"model/model{number}.npy", 2)
    for number in (30, 31, 32):
        folder = root / "CurveFault_B"
        pair(folder / f"seis6_1_{number}.npy", folder / f"vel6_1_{number}.npy", 2)
    return root


def write(path, *pairs):
    path.write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    return path


def names(parts):
    return [part.name for part in parts]


def test_without_a_list_every_file_is_used(openfwi, survey):
    assert len(find_parts(openfwi, survey=survey)) == 9


def test_the_published_lists(openfwi, survey, tmp_path):
    split = write(
        tmp_path / "train.txt",
        *[(f"{AUTHORS}/FlatVel_A/data/data{n}.npy", f"{AUTHORS}/FlatVel_A/model/model{n}.npy") for n in (48, 49)],
        (f"{AUTHORS}/CurveFault_B/seis6_1_30.npy", f"{AUTHORS}/CurveFault_B/vel6_1_30.npy"),
    )
    parts = find_parts(openfwi, split, survey)
    assert names(parts) == ["FlatVel_A/data/data48", "FlatVel_A/data/data49", "CurveFault_B/seis6_1_30"]
    assert [part.family for part in parts] == ["FlatVel_A", "FlatVel_A", "CurveFault_B"]
    assert parts[0].velocity == openfwi / "FlatVel_A/model/model48.npy"


def test_a_published_list_with_its_familys_folder_as_root(openfwi, survey, tmp_path):
    split = write(
        tmp_path / "flatvel_a_train.txt",
        (f"{AUTHORS}/FlatVel_A/data/data48.npy", f"{AUTHORS}/FlatVel_A/model/model48.npy"),
    )
    assert names(find_parts(openfwi / "FlatVel_A", split, survey)) == ["data/data48"]
    with pytest.raises(UserError, match=r"line 1, names \S+FlatVel_A/data/data48\.npy, which is not under"):
        find_parts(openfwi / "FlatVel_B", split, survey)


def test_relative_to_the_root_and_to_the_family(openfwi, survey, tmp_path):
    relative = write(tmp_path / "a.txt", ("FlatVel_B/data/data50.npy", "FlatVel_B/model/model50.npy"))
    assert names(find_parts(openfwi, relative, survey)) == ["FlatVel_B/data/data50"]
    inside = write(tmp_path / "flatvel_b_val.txt", ("data/data50.npy", "model/model50.npy"))
    assert names(find_parts(openfwi, inside, survey)) == ["FlatVel_B/data/data50"]
    beside = write(openfwi / "FlatVel_A" / "mine.txt", ("data/data50.npy", "model/model50.npy"))
    assert names(find_parts(openfwi, beside, survey)) == ["FlatVel_A/data/data50"]


def test_the_list_may_lie_in_the_root(openfwi, survey):
    write(openfwi / "val.txt", ("FlatVel_A/data/data50.npy", "FlatVel_A/model/model50.npy"))
    assert len(find_parts(openfwi, "val.txt", survey)) == 1


def test_blank_lines_and_repeated_lines(openfwi, survey, tmp_path):
    line = "FlatVel_A/data/data50.npy\tFlatVel_A/model/model50.npy\r\n"
    split = tmp_path / "a.txt"
    split.write_text(line + "\n" + line)
    assert len(find_parts(openfwi, split, survey)) == 1


def test_without_labels_one_path_a_line_will_do(openfwi, survey, tmp_path):
    split = write(tmp_path / "a.txt", ("FlatVel_A/data/data50.npy",))
    assert find_parts(openfwi, split, survey, labels=False)[0].velocity is None
    with pytest.raises(UserError, match=r"a\.txt, line 1, reads 'FlatVel_A.*write 'seismic path<TAB>velocity path'"):
        find_parts(openfwi, split, survey)


def test_errors(openfwi, survey, tmp_path):
    with pytest.raises(UserError, match=r"none\.txt does not exist, nor does .*openfwi/none\.txt: set split"):
        find_parts(openfwi, "none.txt", survey)
    with pytest.raises(UserError, match=r"empty\.txt names no files"):
        find_parts(openfwi, write(tmp_path / "empty.txt"), survey)
    split = write(tmp_path / "a.txt", ("FlatVel_A/data/data99.npy", "FlatVel_A/model/model99.npy"))
    with pytest.raises(UserError, match=r"a\.txt, line 1, names FlatVel_A/data/data99\.npy, which is not under"):
        find_parts(openfwi, split, survey)
