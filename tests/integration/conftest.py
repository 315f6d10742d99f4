"""A survey small enough for seconds, two families of ten samples, and a run trained on it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.integration.helpers import SMALL, SURVEY, command


@pytest.fixture(scope="session")
def survey(tmp_path_factory) -> Path:
    """A folder written by `simulate`."""
    folder = tmp_path_factory.mktemp("survey") / "data"
    assert command("simulate", f"output={folder}", *SURVEY) == 0
    return folder


@pytest.fixture(scope="session")
def trained(survey, tmp_path_factory) -> SimpleNamespace:
    """A run of two epochs on that survey."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["data=openfwi", f"data.root={survey}", *SMALL, "trainer.max_epochs=2"]
    assert command("train", *words, f"hydra.run.dir={folder}") == 0
    return SimpleNamespace(folder=folder, words=words, best=folder / "checkpoints" / "best.ckpt")
