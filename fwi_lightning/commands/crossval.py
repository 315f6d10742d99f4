"""`python -m fwi_lightning crossval`: out-of-fold predictions of several runs, and their scores fold by fold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.utils.data import DataLoader

from fwi_lightning.commands.fitting import ENVIRONMENT, SETTINGS
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.predict import choose_device
from fwi_lightning.config import build, plain
from fwi_lightning.data import GathersDataModule
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.figures.curves import fold_spread
from fwi_lightning.report.page import Section, draw, write_page
from fwi_lightning.report.tables import OVERALL, Rows, records_table, write_csv
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_model
from fwi_lightning.training.metrics import SCORES, score_samples
from fwi_lightning.training.scores import VelocityScores

BEST = "checkpoints/best.ckpt"


@dataclass(frozen=True)
class FoldRun:
    """A finished training.

    Attributes:
        folder: Its run folder.
        fold: The fold that it did not train on.
        model: Choice of `model=`.
        data: Its data, set up.
        division: What runs that are compared must have in common: the files, how they are divided, the survey.
    """

    folder: Path
    fold: int
    model: str
    data: GathersDataModule
    division: dict[str, Any]


def main(config: DictConfig) -> None:
    """Predict every fold with the run that held it out; write maps, scores and a page.

    Args:
        config: conf/crossval.yaml.

    Raises:
        UserError: If the runs do not belong together, or a folder cannot be read or written.
    """
    runs = [read_run(folder) for folder in find_runs(config.runs)]
    check_runs(runs)
    output = writable_folder(config.output)
    device = choose_device(config.device)
    folds = [predict_fold(run, output, int(config.batch_size), device) for run in runs]
    _gather(output / "velocity.npy", folds)
    rows = [row for fold in folds for row in fold.rows]
    scores = summarise([fold.scores for fold in folds])
    write_csv(output / "samples.csv", sorted(rows, key=lambda row: row["number"]))
    write_csv(output / "per_family.csv", scores)
    page = _report(output, runs, folds, scores)
    rich.print(records_table(scores).to_rich())
    for path in (output / "velocity.npy", output / "samples.csv", output / "per_family.csv", page):
        print(path)


def find_runs(given: str | ListConfig) -> list[Path]:
    """Run folders of a folder, or those of a list.

    Raises:
        UserError: If there is none, or one of a list is none.
    """
    if isinstance(given, str):
        folders = sorted(path.parent for path in Path(given).glob(f"*/{SETTINGS}"))
        if not folders:
            raise UserError(f"runs={given} holds no run folders: give the folder of `train.py -m fold=0,1,2,3,4`.")
        return folders
    return [Path(folder) for folder in given]


def read_run(folder: Path) -> FoldRun:
    """A run from its folder, its data found again.

    Raises:
        UserError: If the folder holds no finished run, or its data is gone.
    """
    for name in (SETTINGS, ENVIRONMENT, BEST):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no finished run: it has no {name}. Leave it out, or finish it first.")
    config = OmegaConf.load(folder / SETTINGS)
    survey = Survey(**plain(config.physics))
    data: GathersDataModule = build(
        config.data, survey=survey.to_dict(), fold=config.fold, folds=config.folds, seed=config.seed
    )
    data.prepare_data()
    data.setup()
    division = {
        "files": [str(part.gathers) for part in data.parts],
        "folds": config.folds,
        "seed": config.seed,
        "survey": survey.to_dict(),
    }
    model = json.loads((folder / ENVIRONMENT).read_text())["model"]
    return FoldRun(folder, int(config.fold), model, data, division)


def check_runs(runs: Sequence[FoldRun]) -> None:
    """Refuse runs whose folds are not parts of one and the same division.

    Raises:
        UserError: With the names of two runs that differ, of two that held out the same, or of a fold that nobody did.
    """
    first = runs[0]
    for run in runs[1:]:
        differing = [name for name, value in run.division.items() if value != first.division[name]]
        if differing:
            raise UserError(
                f"{first.folder} and {run.folder} differ in {', '.join(differing)}: only folds of one division of the "
                "same data make a cross-validation."
            )
    held: dict[int, Path] = {}
    for run in runs:
        if run.fold in held:
            raise UserError(f"{held[run.fold]} and {run.folder} both held out fold {run.fold}: leave out one of them.")
        held[run.fold] = run.folder
    missing = sorted(set(range(first.division["folds"])) - set(held))
    if missing:
        raise UserError(
            f"no run held out fold {', '.join(map(str, missing))} of {first.division['folds']}: train with "
            f"fold={','.join(map(str, missing))} too."
        )


@dataclass(frozen=True)
class Fold:
    """What the model of a run says of the samples that it was not trained on.

    Attributes:
        path: File with numbers (samples,), their places in the data set, and velocity (samples, 1, depth, width), m/s.
        rows: A row of samples.csv for each.
        scores: Scores per family and for "all".
    """

    path: Path
    rows: list[dict[str, Any]]
    scores: Rows


def predict_fold(run: FoldRun, output: Path, batch_size: int, device: str) -> Fold:
    """Predict and score the held-out samples of a run; a second start reads the maps that the first one wrote.

    Args:
        run: The run.
        output: Folder; the maps go into its folds/.
        batch_size: Samples at a time.
        device: Where to predict.
    """
    dataset = run.data.val_dataset
    with (run.folder / BEST).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    path = output / "folds" / f"{run.fold}-{digest}.npz"
    if not path.is_file():
        _write_maps(path, run, batch_size, device)
    with np.load(path) as content:
        maps = torch.from_numpy(content["velocity"])
    sums = VelocityScores(run.data.families, alone=True)
    rows = []
    for place in range(len(dataset)):
        part, line = dataset.locate(place)
        prediction, truth = maps[place][None], dataset.velocity(place)[None]
        sums.update(prediction, truth, torch.tensor([run.data.families.index(part.family)]))
        scores = {name: value.item() for name, value in score_samples(prediction, truth).items()}
        named = {"number": int(dataset.rows[place]), "name": part.name, "index": line, "family": part.family}
        rows.append(named | {"fold": run.fold} | scores)
    overall = {name: value.item() for name, value in sums.compute().items()}
    return Fold(path, rows, sums.per_family() | {OVERALL: {"samples": len(dataset)} | overall})


def _write_maps(path: Path, run: FoldRun, batch_size: int, device: str) -> None:
    model = load_model(run.folder / BEST, device)
    dataset = run.data.val_dataset
    maps = []
    with Progress(f"fold {run.fold}", 0, len(dataset)) as progress:
        for batch in DataLoader(dataset, batch_size):
            maps.append(model.predict_answer(batch["gathers"], batch_size).velocity)
            progress.advance(len(maps[-1]))
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, numbers=dataset.rows, velocity=torch.cat(maps).numpy())
    temporary.replace(path)


def _gather(path: Path, folds: Sequence[Fold]) -> None:
    """One file of all folds in the order of the data set, (samples, 1, depth, width) float32 in m/s."""
    samples = sum(len(fold.rows) for fold in folds)
    whole = None
    temporary = path.with_suffix(".tmp.npy")
    for fold in folds:
        with np.load(fold.path) as content:
            velocity = content["velocity"]
            if whole is None:
                shape = (samples, *velocity.shape[1:])
                whole = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
            whole[content["numbers"]] = velocity
    assert whole is not None
    whole.flush()
    temporary.replace(path)


def summarise(folds: Sequence[Rows]) -> list[dict[str, Any]]:
    """Mean over folds of each score, and how far folds are apart.

    Args:
        folds: Scores per family and for "all", of each fold.

    Returns:
        A row for each family, "all" last: samples, each of `SCORES`, and SCORE_spread, the standard deviation over
        folds (one less in the denominator).
    """
    names = [name for name in folds[0] if name != OVERALL] + [OVERALL]
    table = []
    for name in names:
        found = [fold[name] for fold in folds if name in fold]
        row: dict[str, Any] = {"family": name, "samples": int(sum(scores["samples"] for scores in found))}
        for score in SCORES:
            values = [scores[score] for scores in found]
            row[score] = float(np.mean(values))
            row[f"{score}_spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        table.append(row)
    return table


def _report(output: Path, runs: Sequence[FoldRun], folds: Sequence[Fold], scores: list[dict[str, Any]]) -> Path:
    errors = {row["family"]: [fold.scores[row["family"]]["mae"] for fold in folds] for row in scores}
    picture = draw(
        fold_spread(errors),
        "MAE of each fold (dots) and their mean (bars), on samples that the model was not trained on",
        output / "figures" / "folds.png",
    )
    members = [
        {"fold": run.fold, "model": run.model, "samples": len(run.data.val_dataset), "run": str(run.folder)}
        for run in runs
    ]
    sections = [
        Section("Scores per family", [picture, records_table(scores)]),
        Section("Runs", [records_table(members)]),
    ]
    path = output / "report.html"
    write_page(path, f"{len(runs)} folds, {sum(len(fold.rows) for fold in folds):,} samples", sections)
    return path
