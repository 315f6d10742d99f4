from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from fwi_lightning.data.npy import Maps, read_header
from fwi_lightning.errors import UserError


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i2"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4), (0, 5)])
def test_header_says_what_numpy_reads(tmp_path, shape, dtype):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(shape, dtype))
    header = read_header(path)
    assert (header.shape, header.dtype) == (shape, np.dtype(dtype))
    assert header.size == path.stat().st_size


def test_the_second_format_with_a_long_header(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2, *[1] * 1000, 3)}
        np.lib.format.write_array_header_2_0(file, header)
        file.write(np.arange(6, dtype="<f4").tobytes())
    assert read_header(path).shape == (2, *[1] * 1000, 3)
    assert read_header(path).offset == path.stat().st_size - 24


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.npy is not a \.npy file: it is empty; write it again"),
        (b"PK\x03\x04 and so on", r"it starts with b'PK.*', not with"),
        (b"\x93NUMPY\x01\x00\x05\x00hello and more", "has a damaged or unknown .npy header"),
        (b"\x93NUMPY\x09\x00\x05\x00hello and more", "has a damaged or unknown .npy header"),
        (b"\x93NUMPY", "has a damaged or unknown .npy header"),
    ],
)
def test_files_that_are_no_npy(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_header(path)


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 5), np.float32))
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(UserError, match=rf"cut short.*\(4, 5\).*float32 takes {size} bytes.*has {size - 1}.*again"):
        read_header(path)


def test_a_forged_shape_does_not_wrap_around(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**62, 4)})
    with pytest.raises(UserError, match="cut short"):
        read_header(path)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_python_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects, which are never loaded"):
        read_header(path)
    with pytest.raises(UserError, match="Python objects"):
        Maps()[path]


def test_records(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3, [("x", "f4"), ("y", "f4")]))
    with pytest.raises(UserError, match="holds records with the fields x, y"):
        read_header(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"gone\.npy does not exist"):
        read_header(tmp_path / "gone.npy")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_header(tmp_path)


def test_only_the_latest_maps_stay_open(tmp_path):
    paths = [tmp_path / f"{number}.npy" for number in range(10)]
    for number, path in enumerate(paths):
        np.save(path, np.full((3, 2), number))
    maps = Maps(keep=3)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(2):
        for number, path in enumerate(paths):
            assert (maps[path] == number).all()
            maps[paths[0]]  # used again and again: stays
    assert len(maps) == 3
    assert paths[0] in maps._open
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_a_map_cannot_write_to_the_file_and_knows_both_orders(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "c.npy", array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    maps = Maps()
    for name in ("c.npy", "f.npy"):
        assert np.array_equal(maps[tmp_path / name], array)
        assert not maps[tmp_path / name].flags.writeable


def test_pickled_maps_arrive_empty(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(100_000))
    maps = Maps(keep=7)
    maps[path]
    copied = pickle.dumps(maps)
    assert len(copied) < 500
    assert (len(pickle.loads(copied)), pickle.loads(copied).keep) == (0, 7)
