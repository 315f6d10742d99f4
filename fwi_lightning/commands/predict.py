"""`python predict.py`: velocity maps of recorded gathers, how well they explain them, pictures and a page."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from fwi_lightning.commands.answers import Answers
from fwi_lightning.commands.demo import demonstrate, with_starter
from fwi_lightning.commands.environment import environment
from fwi_lightning.commands.examples import draw_examples
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.predicting import (
    GRADIENT,
    Budget,
    Source,
    check_windows,
    predict_all,
    predict_within,
    seconds_of,
)
from fwi_lightning.commands.recording import compare_with_survey
from fwi_lightning.commands.submission import Submission
from fwi_lightning.config import plain
from fwi_lightning.data import Part, find_parts
from fwi_lightning.data.truth import with_truth
from fwi_lightning.errors import UserError
from fwi_lightning.inversion import Chain, build_steps
from fwi_lightning.inversion.calibration import read_calibration
from fwi_lightning.inversion.ensemble import Ensemble, load_model
from fwi_lightning.inversion.quality import rank_correlation
from fwi_lightning.inversion.store import Store
from fwi_lightning.models import VelocityModel
from fwi_lightning.report.prediction import PredictionReport, write_prediction_report
from fwi_lightning.report.tables import write_csv
from fwi_lightning.survey import Survey

SIMULATED = 1000
"""Samples up to which `misfit: null` simulates every prediction."""

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

STATE = ".state"
"""Folder in the output for what a second start goes on from."""


def main(config: DictConfig) -> None:
    """Predict every sample of a file or folder.

    Args:
        config: conf/predict.yaml.

    Raises:
        UserError: If the checkpoint, the input, the truth or the output folder cannot be used, or a setting is wrong.
    """
    begun = time.monotonic()
    config = with_starter(config)
    if config.input is None and config.start is None:
        demonstrate(config, main)
        return
    settings = plain(config.inference)
    _check(config)
    steps = build_steps(settings, network=config.ckpt is not None)
    seconds = seconds_of(settings["time_budget"])
    check_windows(settings["windows"])
    model, calibration = None, None
    if config.ckpt is not None:
        model = _at_precision(load_model(Path(config.ckpt), choose_device(config.device)), config.precision)
        calibration = None if isinstance(model, Ensemble) else read_calibration(Path(config.ckpt))
    survey = model.survey if model else Survey(**plain(config.physics))
    parts = find_parts(config.input, survey=survey, labels=False, any_width=True, any_shots=True)
    start = config.start if config.start in (None, GRADIENT) else with_truth(parts, config.start, survey, "start")
    if config.truth is not None:
        parts = with_truth(parts, config.truth, survey)
    line_shots = None if config.line_shots is None else tuple(config.line_shots)
    source = Source(parts, survey, model, config.batch_size, settings["windows"], line_shots, start, calibration)
    simulated = len(source.dataset) <= SIMULATED if config.misfit is None else config.misfit
    folder = writable_folder(config.output)
    # Within a budget, simulating after each step would cost what the steps are to have.
    chain = Chain(steps, simulated, measured=simulated and seconds is None)
    store = Store(folder / STATE, _facts(config, settings, parts, chain), config.fresh)
    if store.finished and all((folder / "velocity" / f"{part.name}.npy").is_file() for part in parts):
        print(f"{folder} holds all of this already; fresh=true predicts it again")
        return
    writer = _Writer(config, source, folder, begun)
    try:
        if seconds is None:
            with writer:
                predict_all(source, chain, store, writer.answers.add)
            complete = True
        else:
            counts = predict_within(Budget(seconds, begun), source, chain, store, lambda: _write_all(writer, store))
            complete = min(counts.values()) == len(source.dataset)
            print(_said(counts, len(source.dataset)))
    except KeyboardInterrupt:
        print("the same command goes on from here", file=sys.stderr)
        raise
    if complete:
        store.finish()
    _summarise(writer.answers, folder, config.submission)


class _Writer:
    """A context in which answers are taken; at its end the tables and the page are written."""

    def __init__(self, config: DictConfig, source: Source, folder: Path, begun: float) -> None:
        self.config, self.source, self.folder, self.begun = config, source, folder, begun
        self.facts: dict[str, Any] | None = None

    def __enter__(self) -> _Writer:
        config = self.config
        if self.facts is None:
            line = any(part.shape != self.source.survey.gathers_shape for part in self.source.dataset.parts)
            differences = {} if line else _differences(self.source)
            self.facts = environment() | differences
        self._stack = ExitStack()
        submission = None
        if config.submission:
            submission = self._stack.enter_context(Submission(self.folder / "submission.csv"))
        self.answers = Answers(self.folder, self.source, submission)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is not None:
            return
        answers, assured = self.answers, self.facts or {}
        write_csv(self.folder / "quality.csv", answers.quality)
        if answers.scores:
            write_csv(self.folder / "scores.csv", answers.scores)
        assert not isinstance(answers.velocity_counts, int)
        write_prediction_report(
            self.folder,
            PredictionReport(
                checkpoint=str(self.config.ckpt or f"none: start={self.config.start}"),
                files=len(self.source.dataset.parts),
                quality=answers.quality,
                velocity_counts=answers.velocity_counts,
                examples=draw_examples(
                    self.source, self.folder, answers.quality, answers.scores, answers.histories, self.config.pictures
                ),
                scores=answers.scores,
                families=self.source.named,
                environment=assured | {"seconds": f"{time.monotonic() - self.begun:.0f}"},
                survey=self.source.survey,
            ),
        )


def _differences(source: Source) -> dict[str, str]:
    if len(source.dataset) > 1:
        try:
            return {"differences from the survey": compare_with_survey(source.dataset, source.survey)}
        except UserError as error:  # of a sample that is flagged and mended when its turn comes
            print(f"warning: {error}", file=sys.stderr)
            return {"differences from the survey": "not compared: a sample looked at is not finite"}
    return {"differences from the survey": compare_with_survey(source.dataset, source.survey)}


def _write_all(writer: _Writer, store: Store) -> None:
    """Write all answers as far as they have come."""
    with writer:
        for number in range(len(writer.source.batches)):
            writer.answers.add(number, store.load(number, writer.source.state(number)))


def _check(config: DictConfig) -> None:
    """Look at the settings before any work.

    Raises:
        UserError: If one is out of range, or two do not go together.
    """
    if config.batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {config.batch_size}.")
    if config.input is None:
        raise UserError("input is needed: add input=FILE_OR_DIR to the command.")
    if config.ckpt is not None and config.start is not None:
        raise UserError("ckpt= and start= are two beginnings: give a checkpoint, or a map to start from.")
    if config.start is not None and config.inference.refine is None:
        raise UserError("start= without a network changes nothing but by refinement: add inference=refine_only.")


def _facts(config: DictConfig, settings: dict[str, Any], parts: list[Part], chain: Chain) -> dict[str, Any]:
    """What the states of the batches depend on."""
    files = [[part.name, part.samples, part.gathers.stat().st_size, part.gathers.stat().st_mtime_ns] for part in parts]
    checkpoint = None
    if config.ckpt is not None:
        with Path(config.ckpt).open("rb") as file:
            checkpoint = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "ckpt": checkpoint,
        "input": hashlib.sha256(repr(files).encode()).hexdigest(),
        "start": config.start,
        "line_shots": plain(config.line_shots),
        "physics": plain(config.physics) if config.ckpt is None else None,
        "inference": {key: value for key, value in settings.items() if key != "time_budget"},
        "misfit": chain.rounds[-1].name == "check" if chain.rounds else False,
        "precision": str(config.precision),
        "batch_size": config.batch_size,
    }


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


def _said(counts: dict[str, int], samples: int) -> str:
    """How far the budget has reached, in a sentence."""
    done = [name for name, count in counts.items() if count == samples]
    left = [f"{name} ({count} of {samples})" for name, count in counts.items() if count < samples]
    if not left:
        return f"done for all samples: {', '.join(done)}"
    return f"done for all samples: {', '.join(done)}; not for all: {', '.join(left)}; the same command goes on"


def _summarise(answers: Answers, folder: Path, submission: bool) -> None:
    misfits = [row["misfit"] for row in answers.quality if row["misfit"] is not None]
    if misfits:
        print(f"median misfit of the simulated predictions: {np.median(misfits):.3g} of the recorded rms")
    flagged = sum(bool(row["flags"]) for row in answers.quality)
    if flagged:
        print(f"{flagged} of {len(answers.quality)} samples are flagged, see quality.csv")
    if answers.scores:
        print(f"MAE {np.mean([row['mae'] for row in answers.scores]):.1f} m/s over {len(answers.scores)} true maps")
    if (correlation := rank_correlation(answers.quality, answers.scores)) is not None:
        print(f"rank correlation of expected and true MAE: {correlation:.2f}")
    names = ["velocity", "quality.csv"] + ["scores.csv"] * bool(answers.scores) + ["submission.csv"] * submission
    for name in [*names, "report.html"]:
        print(folder / name)
