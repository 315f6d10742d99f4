"""Illumination beside the data: the right maps, computed once, made anew when the velocity changes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataModule, beside, find_parts
from fwi_lightning.data import illumination as module
from fwi_lightning.data.illumination import illumination_file, write_illuminations
from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(width=16, depth=14, shots=2, samples=60, sponge=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    root = tmp_path / "data"
    for family in ("FlatVel_A", "Style_A"):
        for number in range(2):
            for kind in ("data", "model"):
                (root / family / kind).mkdir(parents=True, exist_ok=True)
            velocity = generator.uniform(1500, 3000, (3, 1, *SURVEY.grid)).astype(np.float32)
            gathers = illuminate(torch.from_numpy(velocity[:, 0]), SURVEY)[0].numpy()
            np.save(root / family / "data" / f"data{number + 1}.npy", gathers)
            np.save(root / family / "model" / f"model{number + 1}.npy", velocity)
    return root


def test_batches_have_the_illumination_of_their_own_maps(folder: Path, tmp_path: Path) -> None:
    data = GathersDataModule(folder, SURVEY, folds=2, batch_size=4)
    data.needs_illumination = True
    data.prepare_data()
    assert len(list(folder.rglob(".illumination/*.npy"))) == 4
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            expected = illuminate(batch["velocity"][:, 0], SURVEY)[1]
            torch.testing.assert_close(batch["illumination"][:, 0], expected, rtol=1e-6, atol=0)


def test_computed_once_and_again_when_velocity_or_survey_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, kept = find_parts(folder, survey=SURVEY), str(tmp_path / "lit")
    files = write_illuminations(parts, SURVEY, kept)
    calls: list[int] = []
    monkeypatch.setattr(module, "illuminate", lambda maps, survey: calls.append(len(maps)) or illuminate(maps, survey))
    assert write_illuminations(parts, SURVEY, kept) == files
    assert not calls
    files[2].unlink()
    write_illuminations(parts, SURVEY, kept)
    assert sum(calls) == 3
    assert parts[0].velocity is not None
    os.utime(parts[0].velocity, ns=(1, 1))
    assert illumination_file(parts[0], SURVEY, kept) != files[0]
    assert illumination_file(parts[1], SURVEY, kept) == files[1]
    assert illumination_file(parts[1], replace(SURVEY, frequency=10), kept) != files[1]


def test_a_stop_leaves_nothing_half_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "illuminate", stop)
    with pytest.raises(KeyboardInterrupt):
        write_illuminations(find_parts(folder, survey=SURVEY), SURVEY, str(tmp_path / "lit"))
    assert not list((tmp_path / "lit").glob("*.npy"))


def test_data_that_nothing_can_be_written_beside(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(beside.os, "access", lambda *_: False)
    files = write_illuminations(find_parts(folder, survey=SURVEY), SURVEY)
    assert {file.parent for file in files} == {Path("cache/illumination")}
    assert len(set(files)) == 4  # though two families have a model1.npy each
    assert all(file.is_file() for file in files)


def test_a_map_that_cannot_be_simulated_is_named(folder: Path) -> None:
    path = folder / "Style_A" / "model" / "model2.npy"
    velocity = np.load(path)
    velocity[2, 0, 3, 3] = 9000
    np.save(path, velocity)
    with pytest.raises(UserError, match=r"model2.npy, samples 0 to 2, cannot be simulated: velocity reaches 9000"):
        write_illuminations(find_parts(folder, survey=SURVEY), SURVEY)


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lit").write_text("a file")
    with pytest.raises(UserError, match=r"lit cannot be written .* set data.illumination"):
        write_illuminations(find_parts(folder, survey=SURVEY), SURVEY, str(tmp_path / "lit"))
