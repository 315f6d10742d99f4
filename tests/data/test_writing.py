from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fwi_lightning.data import SyntheticDataModule, find_parts, write_survey, writing
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey


def fake_draw(family, count, seed, start=0, shape=(70, 70)):
    """Maps that tell their family, seed and number."""
    maps = np.zeros((count, 1, *shape), np.float32)
    maps += 1000 + 100 * FAMILIES.index(family) + 10 * seed
    return maps + np.arange(start, start + count, dtype=np.float32)[:, None, None, None]


class Simulator:
    """Counts samples; stops at one of them if told to."""

    def __init__(self):
        self.samples = 0
        self.fail_at, self.error = None, None

    def __call__(self, velocity, survey):
        self.samples += len(velocity)
        if self.fail_at is not None and self.samples >= self.fail_at:
            raise self.error
        return velocity.mean((1, 2))[:, None, None, None].expand(-1, *survey.gathers_shape).contiguous()


@pytest.fixture
def simulator(monkeypatch):
    simulator = Simulator()
    monkeypatch.setattr(writing, "draw", fake_draw)
    monkeypatch.setattr(writing, "simulate", simulator)
    return simulator


def write(folder, survey, **changes):
    settings = {"samples_per_family": 5, "samples_per_file": 2, "batch": 2, "on_progress": lambda *_: None}
    return write_survey(folder, survey=survey, **(settings | changes))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))


def test_the_layout_is_openfwis(simulator, survey, tmp_path):
    folder = write(tmp_path / "out", survey)
    assert files(folder / "FlatVel_A") == [f"{a}/{a}{n}.npy" for a in ("data", "model") for n in (1, 2, 3)]
    assert files(folder / "CurveFault_B") == [f"{a}{n}_1_0.npy" for a in ("seis", "vel") for n in (6, 7, 8)]
    assert files(folder / "FlatFault_A") == [f"{a}{n}_1_0.npy" for a in ("seis", "vel") for n in (2, 3, 4)]
    parts = find_parts(folder, survey=survey)
    assert len(parts) == 30
    assert [part.samples for part in parts if part.family == "Style_A"] == [2, 2, 1]


def test_many_parts_of_a_fault_family_have_names_of_their_own():
    names = {name for number in range(108) for name in writing.part_names("CurveFault_A", number)}
    assert len(names) == 216
    assert {"CurveFault_A/seis2_1_0.npy", "CurveFault_A/vel3_1_35.npy", "CurveFault_A/seis4_1_35.npy"} < names


def test_every_map_is_drawn_once_and_simulated(simulator, survey, tmp_path):
    folder = write(tmp_path, survey, families=["Style_B"], seed=3)
    for number, start in ((1, 0), (2, 2), (3, 4)):
        velocity = np.load(folder / f"Style_B/model/model{number}.npy")
        gathers = np.load(folder / f"Style_B/data/data{number}.npy")
        assert velocity.dtype == gathers.dtype == np.float32
        assert np.array_equal(velocity, fake_draw("Style_B", len(velocity), 3, start, (4, 6)))
        assert gathers.shape == (len(velocity), 2, 8, 6)
        assert np.array_equal(gathers[:, 0, 0, 0], velocity[:, 0, 0, 0])


def test_the_manifest_describes_the_survey(simulator, survey, tmp_path):
    folder = write(tmp_path, survey, seed=7)
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["survey"] == survey.to_dict()
    assert (settings["seed"], settings["samples_per_family"], settings["samples_per_file"]) == (7, 5, 2)
    assert settings["families"] == list(FAMILIES)
    assert manifest["package_version"]
    assert len(manifest["parts"]) == 30
    for name, part in manifest["parts"].items():
        assert part["gathers"] == name
        for kind in ("gathers", "velocity"):
            content = (folder / part[kind]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == part[f"{kind}_sha256"]
            assert len(content) == part[f"{kind}_bytes"]


def test_families_take_turns(simulator, survey, tmp_path):
    simulator.fail_at, simulator.error = 2 * 10 + 1, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, survey)
    assert {part.family for part in find_parts(tmp_path, survey=survey)} == set(FAMILIES)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_a_stop_leaves_whole_parts_and_the_next_run_the_same_survey(simulator, survey, tmp_path, error):
    whole = write(tmp_path / "whole", survey, samples_per_file=4, samples_per_family=8)
    simulator.samples, simulator.fail_at, simulator.error = 0, 4 * 13 + 3, error  # in the second batch of part 14
    folder = tmp_path / "stopped"
    with pytest.raises(type(error)):
        write(folder, survey, samples_per_file=4, samples_per_family=8)
    assert [part.samples for part in find_parts(folder, survey=survey)] == [4] * 13
    assert not list(folder.rglob("*.part"))
    simulator.samples, simulator.fail_at = 0, None
    progress = []
    write(folder, survey, samples_per_file=4, samples_per_family=8, on_progress=lambda *p: progress.append(p))
    assert simulator.samples == 4 * 7
    assert progress[0] == (4 * 13 + 2, 80)
    assert progress[-1] == (80, 80)
    assert files(folder) == files(whole)
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in files(whole))


def test_leftovers_and_damaged_parts_are_made_again(simulator, survey, tmp_path):
    folder = write(tmp_path, survey)
    (folder / "Style_A/data/.data1.npy.part").write_bytes(b"of a killed run")
    os.truncate(folder / "FlatVel_A/model/model2.npy", 100)
    (folder / "FlatFault_B/seis6_1_0.npy").unlink()
    simulator.samples = 0
    write(folder, survey)
    assert simulator.samples == 4
    assert not list(folder.rglob("*.part"))
    assert len(find_parts(folder, survey=survey)) == 30


def test_nothing_is_simulated_twice(simulator, survey, tmp_path):
    write(tmp_path, survey)
    simulator.samples = 0
    write(tmp_path, survey)
    assert simulator.samples == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "with seed=0, not 1: choose another folder"),
        ({"samples_per_file": 5}, "with samples_per_file=2, not 5"),
        ({"families": ["Style_A"]}, r"with families=\[.*\], not \['Style_A'\]"),
    ],
)
def test_other_settings_are_refused(simulator, survey, tmp_path, change, message):
    write(tmp_path, survey)
    with pytest.raises(UserError, match=message):
        write(tmp_path, survey, **change)


def test_another_survey_is_refused_by_what_differs(simulator, survey, tmp_path):
    simulator.fail_at, simulator.error = 1, KeyboardInterrupt()  # before the first part
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, survey)
    other = Survey(**(survey.to_dict() | {"frequency": 20.0}))
    with pytest.raises(UserError, match=r"holds a simulated survey with frequency=15\.0, not 20\.0"):
        write(tmp_path, other)


def test_other_peoples_files_are_left_alone(simulator, survey, tmp_path, pair):
    pair(tmp_path / "FlatVel_A/data/data1.npy", tmp_path / "FlatVel_A/model/model1.npy", 2)
    before = (tmp_path / "FlatVel_A/data/data1.npy").read_bytes()
    with pytest.raises(UserError, match=r"holds files that are not of a simulated survey, such as .*: choose another"):
        write(tmp_path, survey)
    assert (tmp_path / "FlatVel_A/data/data1.npy").read_bytes() == before
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json is no manifest of a simulated survey"):
        write(tmp_path, survey)


def test_a_folder_that_cannot_be_written(simulator, survey, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \((Not a directory|File exists)\): choose a folder"):
        write(tmp_path / "file", survey)
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\): choose a folder"):
        write(tmp_path / "file" / "below", survey)


def test_a_full_disk(simulator, survey, tmp_path, monkeypatch):
    def full(self, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing._PartFile, "append", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*on a disk with space"):
        write(tmp_path, survey)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples_per_family": 0}, "samples_per_family must be at least 1, got 0"),
        ({"samples_per_file": 0}, "samples_per_file must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"families": ["Salt"]}, "families must be some of FlatVel_A.*got Salt"),
        ({"families": []}, "families must be some of FlatVel_A.*got none"),
    ],
)
def test_settings_out_of_range(survey, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path, survey, **change)


def test_where_there_is_no_terminal_plain_lines_are_printed(simulator, survey, tmp_path, capfd):
    write(tmp_path, survey, on_progress=None)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith("50 samples to go")
    assert "50/50 samples" in lines[-1]
    assert "samples/s" in lines[-1]
    assert len(lines) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_two_runs_at_once_make_one_survey(simulator, survey, tmp_path):
    import fcntl

    folder = tmp_path / "out"
    folder.mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w')\ntry: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    code += "except OSError: sys.exit(7)"
    states = []

    def probe(*_):
        states.append(subprocess.run([sys.executable, "-c", code, str(folder / ".lock")], check=False).returncode)

    write(folder, survey, families=["Style_A"], samples_per_family=1, on_progress=probe)
    assert states == [7]
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


class TestSyntheticDataModule:
    def module(self, cache, survey, **changes):
        settings = {"samples_per_family": 4, "samples_per_file": 2, "folds": 2, "batch_size": 4}
        return SyntheticDataModule(str(cache), survey=survey.to_dict(), **(settings | changes))

    def test_it_simulates_once(self, simulator, survey, tmp_path):
        for _ in range(2):
            module = self.module(tmp_path, survey)
            module.prepare_data()
            module.setup("fit")
            assert len(module.train_dataset) == len(module.val_dataset) == 20
            assert module.families == list(FAMILIES)
        assert simulator.samples == 40

    def test_what_changes_the_maps_changes_the_folder(self, survey, tmp_path, monkeypatch):
        first = self.module(tmp_path, survey).root
        assert self.module(tmp_path, survey, seed=5, fold=1, batch_size=9, folds=4).root == first
        others = [
            self.module(tmp_path, survey, survey_seed=1).root,
            self.module(tmp_path, survey, samples_per_family=6).root,
            self.module(tmp_path, survey, samples_per_file=3).root,
            self.module(tmp_path, survey, families=["Style_A"]).root,
            self.module(tmp_path, Survey(**(survey.to_dict() | {"sponge": 9}))).root,
        ]
        monkeypatch.setattr(writing, "MAPS_VERSION", 99)
        others.append(self.module(tmp_path, survey).root)
        assert len({first, *others}) == 7

    def test_hyper_parameters_are_plain(self, survey, tmp_path):
        module = self.module(tmp_path, survey, families=["Style_A", "FlatVel_A"])
        again = SyntheticDataModule(**dict(module.hparams))
        assert (again.root, again.batch_size, again.folds) == (module.root, 4, 2)
        json.dumps(dict(module.hparams))

    def test_a_family_that_is_not_there(self, survey, tmp_path):
        with pytest.raises(UserError, match="got Salt"):
            self.module(tmp_path, survey, families=["Salt"])


def test_with_the_real_maps_and_the_real_simulator(tmp_path):
    folder = write_survey(tmp_path, ["CurveVel_A", "FlatFault_B"], 2, 2, seed=4, on_progress=lambda *_: None)
    for part, family in zip(find_parts(folder), ("CurveVel_A", "FlatFault_B"), strict=True):
        velocity = np.load(part.velocity)
        assert part.family == family
        assert np.array_equal(velocity, draw(family, 2, 4))
        expected = simulate(torch.from_numpy(velocity[1, 0]), OPENFWI).numpy()
        assert np.allclose(np.load(part.gathers)[1], expected, atol=1e-5)
