from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fwi_lightning.survey import Survey

SURVEY = Survey(grid=(4, 6), samples=8, shot_columns=(0, 5), receiver_columns=tuple(range(6)), sponge=2)


def write_pair(gathers: Path, velocity: Path | None, samples: int, seed: int = 0) -> None:
    """A pair of files on `SURVEY`, written with nothing but numpy."""
    generator = np.random.default_rng([seed, *gathers.as_posix().encode()])
    gathers.parent.mkdir(parents=True, exist_ok=True)
    np.save(gathers, generator.standard_normal((samples, 2, 8, 6)).astype(np.float32))
    if velocity is not None:
        velocity.parent.mkdir(parents=True, exist_ok=True)
        np.save(velocity, generator.uniform(1500, 4500, (samples, 1, 4, 6)).astype(np.float32))


@pytest.fixture(scope="session")
def survey():
    return SURVEY


@pytest.fixture(scope="session")
def pair():
    return write_pair


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory):
    """Kaggle's train_samples with files of ten samples: ten families, two files each."""
    root = tmp_path_factory.mktemp("kaggle") / "train_samples"
    for family in ("CurveVel_A", "CurveVel_B", "FlatVel_A", "FlatVel_B", "Style_A", "Style_B"):
        for number in (1, 2):
            write_pair(root / family / f"data/data{number}.npy", root / family / f"model/model{number}.npy", 10)
    for family, numbers in (("CurveFault", (2, 4)), ("FlatFault", (2, 4))):
        for letter, offset in (("A", 0), ("B", 4)):
            for number in numbers:
                folder, name = root / f"{family}_{letter}", f"{number + offset}_1_0.npy"
                write_pair(folder / f"seis{name}", folder / f"vel{name}", 10)
    return root
