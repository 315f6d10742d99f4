"""The end of a training run: scores of the best checkpoint beside the mean map, tables, pictures, the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import rich
import torch
from numpy.typing import NDArray

from fwi_lightning.commands.calibrate import calibrate, describe
from fwi_lightning.commands.fitting import Run
from fwi_lightning.config import plain
from fwi_lightning.data import GathersDataModule, GathersDataset
from fwi_lightning.figures.changes import Change
from fwi_lightning.inversion.calibrating import LEAST
from fwi_lightning.inversion.calibration import write_calibration
from fwi_lightning.report.example import Example
from fwi_lightning.report.run import RunReport, RunSummary, write_run_report
from fwi_lightning.report.tables import OVERALL, Rows, family_table, read_metrics, write_csv, write_family_csv
from fwi_lightning.training.checkpoint import load_model
from fwi_lightning.training.module import InversionModule
from fwi_lightning.training.scores import VelocityScores
from fwi_lightning.training.sharding import Sharded

Predictor = Callable[[Mapping[str, Any]], NDArray[np.float32]]
"""A sample to its map, (1, depth, width) in m/s."""

AUGMENTED = 5
"""Training samples that the report shows before and after augmentation."""


def evaluate(trainer: lightning.Trainer, module: InversionModule, run: Run, seconds: float) -> None:
    """Test the best checkpoint and write per_family.csv, per_sample.csv, figures/ and report.html.

    Args:
        trainer: The trainer after fitting.
        module: The module that it fitted.
        run: The run.
        seconds: Duration of the training.

    Raises:
        UserError: If the folder cannot be written.
    """
    folder, data, config = run.folder, run.data, run.config
    best = folder / "checkpoints" / "best.ckpt"
    tested = best if best.is_file() else None  # a fast_dev_run saves nothing
    trainer.test(module, datamodule=data, ckpt_path=tested, verbose=False, weights_only=True)
    rows = _table(module.test_scores)  # sums over all devices: each has to ask
    if not trainer.is_global_zero:
        return
    baseline = _table(_mean_map_scores(data))
    samples = _per_sample(module.sample_scores, data.test_dataset)
    write_family_csv(folder / "per_family.csv", rows, baseline)
    write_csv(folder / "per_sample.csv", samples)
    predict = _predictor(trainer, module, tested)
    if tested is not None and config.get("calibration") and len(data.val_dataset) >= LEAST:
        found = calibrate(load_model(tested, module.device), data.val_dataset, samples=config.calibration)
        write_calibration(tested, found)
        describe(found)
    report = RunReport(
        title=f"{run.model_name}, fold {config.fold} of {config.folds}",
        summary=RunSummary(
            training_samples=data.samples_per_epoch,
            validation_samples=len(data.test_dataset),
            parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
            seconds=seconds,
        ),
        rows=rows,
        baseline_rows=baseline,
        metrics=read_metrics(folder / "metrics.csv"),
        examples=_examples(predict, data.test_dataset, samples) if predict is not None else [],
        config=plain(config),
        environment=run.facts | {"seed": str(config.seed)},
        survey=data.survey,
        augmented=_augmented(data),
    )
    page = write_run_report(folder, report)
    rich.print(family_table(rows, baseline))
    for path in (tested, folder / "per_family.csv", folder / "per_sample.csv", page):
        if path is not None:
            print(path)


def _table(scores: VelocityScores) -> Rows:
    """Scores per family, and over all of them."""
    families = scores.per_family()
    overall = {name: value.item() for name, value in scores.compute().items()}
    return families | {OVERALL: {"samples": sum(row["samples"] for row in families.values())} | overall}


def _mean_map_scores(data: GathersDataModule) -> VelocityScores:
    """The scores of one who answers every sample with the mean of the training maps."""
    mean = torch.from_numpy(data.mean_velocity())[None]
    scores = VelocityScores(data.families, alone=True)
    for place in range(len(data.test_dataset)):
        part, _ = data.test_dataset.locate(place)
        truth = data.test_dataset.velocity(place)[None]
        scores.update(mean, truth, torch.tensor([data.families.index(part.family)]))
    return scores


def _augmented(data: GathersDataModule) -> list[Change]:
    """A few training samples before and after augmentation; none without one."""
    if not data.augmentations:
        return []
    before, after = (data.training_examples(AUGMENTED, augmented) for augmented in (False, True))
    return [
        Change(
            name=data.families[family],
            velocity=before["velocity"][row].numpy(),
            gathers=before["gathers"][row].numpy(),
            new_velocity=after["velocity"][row].numpy(),
            new_gathers=after["gathers"][row].numpy(),
        )
        for row, family in enumerate(before["family"].tolist())
    ]


def _per_sample(scores: Iterable[dict[str, float]], dataset: GathersDataset) -> list[dict[str, Any]]:
    """Rows of per_sample.csv, one per sample of the data set and in its order."""
    place = {int(number): place for place, number in enumerate(dataset.rows)}
    rows = []
    for row in sorted(scores, key=lambda row: place[int(row["index"])]):
        part, line = dataset.locate(place[int(row.pop("index"))])
        rows.append({"name": part.name, "index": line, "family": part.family} | row)
    return rows


def _predictor(trainer: lightning.Trainer, module: InversionModule, tested: Path | None) -> Predictor | None:
    """The map of a sample, for one process to ask alone; None if the model is sharded and was never saved."""
    if not isinstance(trainer.strategy, Sharded):
        return module.predict_sample
    if tested is None:
        return None
    model = load_model(tested)
    return lambda sample: np.asarray(model.predict(sample["gathers"]))


def _examples(predict: Predictor, dataset: GathersDataset, rows: list[dict[str, Any]]) -> list[Example]:
    """Of every family its median sample, then the best and the worst of all: what the report draws."""
    by_error = sorted(range(len(rows)), key=lambda place: rows[place]["mae"])
    members: dict[str, list[int]] = {}
    for place in by_error:
        members.setdefault(rows[place]["family"], []).append(place)
    medians = [members[family][len(members[family]) // 2] for family in dataset.families if family in members]
    examples = []
    for place in dict.fromkeys([*medians, by_error[0], by_error[-1]]):
        sample = dataset[place]
        examples.append(
            Example(
                name=f"{rows[place]['name']} #{rows[place]['index']}",
                family=rows[place]["family"],
                gathers=sample["gathers"].numpy(),
                prediction=predict(sample),
                truth=sample["velocity"].numpy(),
            )
        )
    return examples
