"""The same samples however they are read: memory maps, memory, copies of half the size, TIFF files."""

import numpy as np
import pytest
import tifffile
import torch

from fwi_lightning.data import GathersDataModule, find_parts
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.reading import half_file, write_halves
from fwi_lightning.errors import UserError
from tests.data.conftest import write_pair


def batches(root, survey, tmp_path, **settings):
    data = GathersDataModule(str(root), survey, fold=1, batch_size=8, half_folder=str(tmp_path / "half"), **settings)
    data.prepare_data()
    data.setup()
    found = [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_gives_the_same_bits(kaggle, survey, tmp_path, workers):
    mapped = batches(kaggle, survey, tmp_path)
    kept = batches(kaggle, survey, tmp_path, reading="memory", num_workers=workers)
    assert all(torch.equal(mapped[name], kept[name]) for name in mapped)


def test_in_memory_training_needs_no_file_twice(tmp_path, survey):
    for number in range(4):
        write_pair(tmp_path / f"data{number}.npy", tmp_path / f"model{number}.npy", 3)
    data = GathersDataModule(str(tmp_path), survey, folds=2, reading="memory")
    data.setup()
    before = data.train_dataset[0]["gathers"]
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    assert torch.equal(data.train_dataset[0]["gathers"], before)


def test_in_memory_a_file_that_has_gone_is_still_there(tmp_path, survey):
    write_pair(tmp_path / "data1.npy", tmp_path / "model1.npy", 3)
    maps = Maps(in_memory=True)
    before = maps[tmp_path / "data1.npy"].copy()
    (tmp_path / "data1.npy").write_bytes(b"gone")
    assert np.array_equal(maps[tmp_path / "data1.npy"], before)


def test_memory_that_does_not_suffice_is_named(kaggle, survey, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_: "MemTotal: 9 kB\nMemAvailable: 1 kB\n")
    with pytest.raises(UserError, match=r"data\.reading=memory needs 0\.0 GB, and 0\.0 GB are free: use map, or half"):
        batches(kaggle, survey, tmp_path, reading="memory")


def test_copies_of_half_the_size_differ_by_the_rounding_of_float16(kaggle, survey, tmp_path):
    mapped, halved = batches(kaggle, survey, tmp_path), batches(kaggle, survey, tmp_path, reading="half")
    assert all(torch.equal(mapped[name], halved[name]) for name in mapped if name != "gathers")
    assert torch.equal(halved["gathers"], mapped["gathers"].half().float())
    assert halved["gathers"].dtype == torch.float32
    files = list((tmp_path / "half").glob("*.npy"))
    assert len(files) == 20
    assert np.load(files[0]).dtype == np.float16


def test_copies_are_written_once_and_again_when_the_file_has_changed(tmp_path, survey):
    write_pair(tmp_path / "data1.npy", tmp_path / "model1.npy", 3)
    (part,) = find_parts(tmp_path, survey=survey)
    write_halves([part], str(tmp_path / "half"))
    first = half_file(part.gathers, str(tmp_path / "half"))
    written = first.stat().st_mtime_ns
    write_halves([part], str(tmp_path / "half"))
    assert first.stat().st_mtime_ns == written
    write_pair(tmp_path / "data1.npy", tmp_path / "model1.npy", 4)
    assert half_file(part.gathers, str(tmp_path / "half")) != first


def test_what_float16_cannot_hold_is_refused_and_nothing_is_left(tmp_path, survey):
    write_pair(tmp_path / "data1.npy", tmp_path / "model1.npy", 3)
    gathers = np.load(tmp_path / "data1.npy")
    gathers[2, 1, 3, 4] = 1e5
    np.save(tmp_path / "data1.npy", gathers)
    with pytest.raises(UserError, match=r"data1\.npy, sample 2, has values above 65504"):
        write_halves(find_parts(tmp_path, survey=survey), str(tmp_path / "half"))
    assert not [path for path in (tmp_path / "half").iterdir() if path.suffix in (".npy", ".tmp")]


@pytest.mark.parametrize(
    "settings", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}], ids=["plain", "zip", "big", "64"]
)
def test_tiff_files_hold_the_same_samples(tmp_path, survey, settings):
    write_pair(tmp_path / "a/FlatVel_A/data1.npy", tmp_path / "a/FlatVel_A/model1.npy", 6)
    folder = tmp_path / "b" / "FlatVel_A"
    folder.mkdir(parents=True)
    for name in ("data1", "model1"):
        array = np.load(tmp_path / f"a/FlatVel_A/{name}.npy")
        if settings.get("byteorder") == ">":
            array = array.astype(">f4")
        tifffile.imwrite(folder / f"{name}.tif", array, photometric="minisblack", **settings)
    one, other = batches(tmp_path / "a", survey, tmp_path), batches(tmp_path / "b", survey, tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_uncompressed_tiff_file_is_mapped_and_not_read(tmp_path):
    tifffile.imwrite(tmp_path / "data1.tif", np.ones((2, 3, 4), np.float32), photometric="minisblack")
    array = Maps()[tmp_path / "data1.tif"]
    assert isinstance(array.base, np.memmap)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"MM\0*broken"), "data1.tif "),
        (lambda path: path.write_bytes(b"hello there"), r"data1\.tif is not a TIFF file"),
        (lambda path: tifffile.imwrite(path, np.ones((5, 2, 8, 6), np.complex64)), "holds values of type complex64"),
        (lambda path: tifffile.imwrite(path, np.ones((5, 2, 8, 7), np.float32)), "has shape"),
    ],
)
def test_tiff_files_that_do_not_fit_get_a_sentence(tmp_path, survey, write, message):
    write(tmp_path / "data1.tif")
    with pytest.raises(UserError, match=message):
        find_parts(tmp_path, survey=survey, labels=False)


def test_a_tiff_file_cut_short(tmp_path, survey):
    tifffile.imwrite(tmp_path / "data1.tif", np.ones((5, 2, 8, 6), np.float32), photometric="minisblack")
    content = (tmp_path / "data1.tif").read_bytes()
    (tmp_path / "data1.tif").write_bytes(content[:1500])
    with pytest.raises(UserError, match=r"data1\.tif"):
        find_parts(tmp_path, survey=survey, labels=False)


def test_an_unknown_way_is_refused(kaggle, survey):
    with pytest.raises(UserError, match="reading must be map, memory or half, got 'fast'"):
        GathersDataModule(str(kaggle), survey, reading="fast")
