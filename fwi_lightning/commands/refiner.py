"""`python -m fwi_lightning refiner`: train a second network that corrects the maps of a first one."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import default_collate

from fwi_lightning.commands.evaluation import evaluate
from fwi_lightning.commands.fitting import Run, begin, fit, introduce, make_trainer, read_data, start_model
from fwi_lightning.commands.score import best_score
from fwi_lightning.config import find_class, plain
from fwi_lightning.data import GathersDataModule, SyntheticDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.refiner import apply_refiner, check_survey
from fwi_lightning.inversion.starts import Starts
from fwi_lightning.models import Refiner, VelocityModel
from fwi_lightning.report.tables import OVERALL, records_table, write_csv
from fwi_lightning.training.checkpoint import load_model, load_refiner, read_checkpoint
from fwi_lightning.training.refining import RefinerModule
from fwi_lightning.training.scores import VelocityScores

FITTING_SAMPLES = 64
"""Training samples that the scales of residual and gradient are taken from."""

BOUNDS = (1500.0, 4500.0)
"""m/s: the maps to correct are brought between these, which every simulator takes."""


def main(config: DictConfig) -> float | None:
    """Train a refiner.

    Args:
        config: conf/refiner.yaml.

    Returns:
        The score that a sweep goes by, see `best_score`.

    Raises:
        UserError: If a setting, the data or a checkpoint does not fit.
    """
    run = begin(config)
    _check(run)
    network = load_model(run.config.network, setting="network")
    if network.survey != run.survey:
        raise UserError(
            f"network={run.config.network} reads another survey than physics= describes: repeat the settings of its "
            "run."
        )
    _warn_of_seen(run)
    starts = _starts(run, network)
    run.data.starts = starts.of
    run.data.prepare_data()
    run.data.setup("fit")
    starts.write(run.data.parts)
    read_data(run)
    module = _make_module(run, starts.network)
    trainer = make_trainer(run, module)
    start_model(run, module.model)
    if not run.resumed:
        module.fit_scales(_some(run.data))
    introduce(run, module)
    begun = time.monotonic()
    fit(trainer, module, run, "python -m fwi_lightning refiner")
    evaluate(trainer, module, run, seconds=time.monotonic() - begun)
    if trainer.is_global_zero:
        _compare(run, module)
    return best_score(run.config, run.folder)


def _check(run: Run) -> None:
    """Refuse data of which the first network's maps cannot be kept, before any work."""
    if not issubclass(find_class(plain(run.config.model)["_target_"]), Refiner):
        raise UserError("a refiner is made with model=refiner: leave out model=, or use train.py for other models.")
    if type(run.data) not in (GathersDataModule, SyntheticDataModule) or run.data.balance.supplement is not None:
        raise UserError(
            "a refiner is trained on samples that stay the same, since each is simulated before: take data=unseen, "
            "synthetic or openfwi, without data.balance.supplement."
        )
    if run.data.test_root:
        raise UserError("a refiner is tested on its held-out fold: leave out data.test_root.")
    if run.data.augmentations:
        raise UserError("a refiner is trained without augmentation, which would change only half of what it reads.")
    if run.config.calibration:
        raise UserError(
            f"calibration={run.config.calibration}: a refiner answers nothing alone. Give calibration=0, then "
            "python -m fwi_lightning calibrate ckpt=NETWORK inference=refiner inference.refiner.ckpt=THIS input=DATA."
        )


def _warn_of_seen(run: Run) -> None:
    """Say so if the first network was trained on this very data."""
    before = read_checkpoint(run.config.network).get("datamodule_hyper_parameters", {})
    now = run.data.hparams
    names = ("root", "cache", "families", "samples_per_family", "samples_per_file", "survey_seed")
    # The folder of a cache may have moved; what is in it depends on the rest.
    kept = [name for name in names if name in now and name != "cache"]
    if kept and all(name in before and before[name] == now[name] for name in kept):
        print(
            "warning: the first network was trained on this data, so its maps are better here than they will be on "
            "new data, and the refiner learns too little: take data=unseen, or another data.survey_seed.",
            file=sys.stderr,
        )


def _starts(run: Run, network: VelocityModel) -> Starts:
    """The maps to correct: those of the first network, after the refiners that go before."""
    files = [Path(file) for file in plain(run.config.before)]
    refiners = [load_refiner(file) for file in files]
    for file, refiner in zip(files, refiners, strict=True):
        check_survey(refiner, run.survey, str(file))

    def predict(gathers: Tensor) -> Tensor:
        velocity = network.predict_answer(gathers).velocity.clamp(*BOUNDS)
        for refiner in refiners:
            velocity = apply_refiner(gathers, velocity, refiner, must_fit=False, bounds=BOUNDS).velocity
        return velocity

    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (Path(run.config.network), *files)]
    step = round(run.config.model.time_step / run.survey.time_step)
    return Starts(Path(run.config.starts), "+".join(sums), predict, run.survey, step)


def _make_module(run: Run, network: str) -> RefinerModule:
    config = run.config
    return RefinerModule(
        network=network,
        model=plain(config.model),
        survey=run.survey.to_dict(),
        loss=plain(config.loss),
        optimizer=plain(config.optimizer),
        scheduler=plain(config.scheduler),
        families=run.data.families,
        heads=plain(config.heads),
    )


def _some(data: GathersDataModule) -> Mapping[str, Any]:
    """A batch of training samples, evenly spread."""
    samples = data.train_dataset
    places = np.unique(np.linspace(0, len(samples) - 1, FITTING_SAMPLES).astype(int)).tolist()
    batch: Mapping[str, Any] = default_collate([samples[place] for place in places])
    return batch


def _compare(run: Run, module: RefinerModule) -> None:
    """Print and write the scores of the held-out maps before and after, family by family."""
    dataset = run.data.test_dataset
    before = VelocityScores(run.data.families, alone=True)
    for place in range(len(dataset)):
        sample = dataset[place]
        family = torch.tensor([sample["family"]])
        before.update(sample["start"][None], sample["velocity"][None], family)
    rows: list[dict[str, Any]] = []
    found = {"before": before, "after": module.test_scores.cpu()}
    tables = {
        name: scores.per_family() | {OVERALL: {key: float(value) for key, value in scores.compute().items()}}
        for name, scores in found.items()
    }
    for name, last in tables["after"].items():
        first = tables["before"][name]
        rows.append({"family": name, "mae before": first["mae"], "mae after": last["mae"]})
        rows[-1] |= {"ssim before": first["ssim"], "ssim after": last["ssim"]}
    write_csv(run.folder / "refiner.csv", rows)
    shown = [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} for row in rows
    ]
    rich.print(records_table(shown).to_rich("held-out maps before and after the refiner"))
    best = run.folder / "checkpoints" / "best.ckpt"
    print(f"use it: python predict.py ckpt={run.config.network} inference=refiner inference.refiner.ckpt={best} ...")
