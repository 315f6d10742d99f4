"""Every experiment trains, as it is, on a small survey."""

import pytest

from fwi_lightning.commands import CONF
from tests.integration.helpers import command

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SMALLER = {
    "caformer": ["model.decoder=[16,16,8]"],
    "convnext": ["model.backbone=convnext_atto"],
    "starter": ["folds=5"],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains(name, survey, tmp_path):
    words = [f"experiment={name}", "data=openfwi", f"data.root={survey}", "physics.samples=400", "data.num_workers=0"]
    words += ["data.batch_size=2", "trainer.fast_dev_run=true", *SMALLER.get(name, [])]
    assert command("train", *words, f"hydra.run.dir={tmp_path / 'run'}") == 0
