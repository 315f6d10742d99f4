"""`python predict.py`: velocity maps of recorded gathers, how well they explain them, pictures and a page."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from fwi_lightning.commands.environment import environment
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.recording import compare_with_survey
from fwi_lightning.commands.submission import Submission
from fwi_lightning.config import plain
from fwi_lightning.data import GathersDataset, Part, find_parts
from fwi_lightning.data.npy import read_header
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.truth import with_truth
from fwi_lightning.errors import UserError
from fwi_lightning.figures.histograms import count_velocities
from fwi_lightning.inversion import Chain, State, build_steps
from fwi_lightning.inversion.quality import inspect_prediction, judge_oneself, rank_correlation
from fwi_lightning.models import VelocityModel
from fwi_lightning.report.example import Example
from fwi_lightning.report.files import write_bytes
from fwi_lightning.report.prediction import PredictionReport, write_prediction_report
from fwi_lightning.report.tables import write_csv
from fwi_lightning.training.checkpoint import load_model
from fwi_lightning.training.metrics import score_samples

SIMULATED = 1000
"""Samples up to which `misfit: null` simulates every prediction."""

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


@dataclass
class Results:
    """What predicting gathers up for the tables and the page."""

    quality: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    velocity_counts: NDArray[np.int64] | None = None


def main(config: DictConfig) -> None:
    """Predict every sample of a file or folder.

    Args:
        config: conf/predict.yaml.

    Raises:
        UserError: If the checkpoint, the input, the truth or the output folder cannot be used.
    """
    checkpoint, source, output = Path(config.ckpt), Path(config.input), Path(config.output)
    if config.batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {config.batch_size}.")
    steps = build_steps(plain(config.inference))
    model = _at_precision(load_model(checkpoint, choose_device(config.device)), config.precision)
    parts = find_parts(source, survey=model.survey, labels=False)
    if config.truth is not None:
        parts = with_truth(parts, config.truth, model.survey)
    samples = sum(part.samples for part in parts)
    simulated = samples <= SIMULATED if config.misfit is None else config.misfit
    folder = writable_folder(output)
    begun = time.monotonic()
    dataset = GathersDataset(parts)
    facts = environment() | {"differences from the survey": compare_with_survey(dataset, model.survey)}
    with ExitStack() as stack:
        submission = stack.enter_context(Submission(folder / "submission.csv")) if config.submission else None
        results = _predict(model, Chain(steps, simulated), dataset, folder, config, submission)
    write_csv(folder / "quality.csv", results.quality)
    if results.scores:
        write_csv(folder / "scores.csv", results.scores)
    assert results.velocity_counts is not None
    page = write_prediction_report(
        folder,
        PredictionReport(
            checkpoint=str(checkpoint),
            files=len(parts),
            quality=results.quality,
            velocity_counts=results.velocity_counts,
            examples=results.examples,
            scores=results.scores,
            environment=facts | {"seconds": f"{time.monotonic() - begun:.0f}"},
            survey=model.survey,
        ),
    )
    _summarise(results, folder, page, submission is not None)


def _predict(
    model: VelocityModel,
    chain: Chain,
    dataset: GathersDataset,
    folder: Path,
    config: DictConfig,
    submission: Submission | None,
) -> Results:
    """Predict batch by batch across files; a file's maps are written when its last sample is done."""
    drawn = set(np.linspace(0, len(dataset) - 1, min(config.pictures, len(dataset))).astype(int).tolist())
    results = Results()
    waiting: list[NDArray[np.float32]] = []
    with Progress("predicting", 0, len(dataset)) as progress:
        for places in _batches(len(dataset), config.batch_size):
            batch = [dataset[place] for place in places]
            gathers = torch.stack([sample["gathers"] for sample in batch])
            answer = model.predict_answer(gathers, config.batch_size)
            state = State(
                gathers,
                answer.velocity,
                model.survey,
                network=lambda records: model.predict_answer(records, config.batch_size),
                answer=answer,
                families=model.families,
                note=progress.note,
            )
            velocity = chain.run(state).velocity
            quality = inspect_prediction(
                gathers, velocity, model.survey, chain.simulated, model.known.use != "none", answer.inconsistency
            )
            heads = judge_oneself(answer, model.families)
            for row, (place, sample) in enumerate(zip(places, batch, strict=True)):
                part, line = dataset.locate(place)
                name = {"name": part.name, "index": line}
                results.quality.append(
                    name | quality[row] | heads[row] | {key: values[row] for key, values in state.columns.items()}
                )
                predicted = velocity[row]
                if "velocity" in sample:
                    scores = score_samples(predicted[None], sample["velocity"][None])
                    results.scores.append(name | {key: value.item() for key, value in scores.items()})
                if place in drawn:
                    results.examples.append(_example(part, line, sample, predicted))
                waiting.append(predicted.numpy())
                if line == part.samples - 1:
                    _write(part, waiting, folder, submission)
                    waiting = []
            counts = count_velocities(velocity.numpy())
            results.velocity_counts = counts if results.velocity_counts is None else results.velocity_counts + counts
            progress.advance(len(places))
    return results


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _example(part: Part, line: int, sample: dict[str, Any], predicted: torch.Tensor) -> Example:
    return Example(
        name=f"{part.name} #{line}" if part.samples > 1 else part.name,
        family="" if part.family == "unknown" else part.family,
        gathers=sample["gathers"].numpy(),
        prediction=predicted.numpy(),
        truth=sample["velocity"].numpy() if "velocity" in sample else None,
    )


def _write(part: Part, maps: list[NDArray[np.float32]], folder: Path, submission: Submission | None) -> None:
    """Write the maps of one file: (1, depth, width) for a file of one bare sample, else (N, 1, depth, width)."""
    bare = len(read_header(part.gathers).shape) == 3
    content = io.BytesIO()
    np.save(content, maps[0] if bare else np.stack(maps))
    write_bytes(folder / "velocity" / f"{part.name}.npy", content.getvalue())
    if submission is not None:
        stem = Path(part.name).name
        for line, velocity in enumerate(maps):
            submission.write(stem if part.samples == 1 else f"{stem}_{line}", velocity[0])


def choose_device(name: str) -> str:
    """The device of a name, "auto" for the GPU where there is one.

    Raises:
        UserError: If a GPU is asked for and none is found.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={name} asks for a GPU and none is found: use device=cpu or device=auto.")
    return name


def _at_precision(model: VelocityModel, precision: int | str) -> VelocityModel:
    """The model in the precision asked for, tried on one sample of zeros."""
    if str(precision) not in PRECISIONS:
        raise UserError(f"precision must be {', '.join(PRECISIONS)}, got {precision!r}.")
    model.lower(PRECISIONS[str(precision)])
    try:
        model.predict(torch.zeros(model.survey.gathers_shape))
    except RuntimeError as error:
        raise UserError(
            f"this device cannot compute with precision={precision} ({error}): use precision=32."
        ) from error
    return model


def _summarise(results: Results, folder: Path, page: Path, submission: bool) -> None:
    misfits = [row["misfit"] for row in results.quality if row["misfit"] is not None]
    if misfits:
        print(f"median misfit of the simulated predictions: {np.median(misfits):.3f} of the recorded rms")
    flagged = sum(bool(row["flags"]) for row in results.quality)
    if flagged:
        print(f"{flagged} of {len(results.quality)} samples are flagged, see quality.csv")
    if results.scores:
        print(f"MAE {np.mean([row['mae'] for row in results.scores]):.1f} m/s over {len(results.scores)} true maps")
    if (correlation := rank_correlation(results.quality, results.scores)) is not None:
        print(f"rank correlation of expected and true MAE: {correlation:.2f}")
    names = ["velocity", "quality.csv"] + ["scores.csv"] * bool(results.scores) + ["submission.csv"] * submission
    for name in names:
        print(folder / name)
    print(page)
