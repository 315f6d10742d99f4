"""What predict.py writes: a file of maps for each file of gathers, and the rows of its tables."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.commands.predicting import Source
from fwi_lightning.commands.submission import Submission
from fwi_lightning.data import Part
from fwi_lightning.data.dataset import read_velocity
from fwi_lightning.data.npy import Maps, read_header
from fwi_lightning.figures.histograms import count_velocities
from fwi_lightning.inversion import State
from fwi_lightning.inversion.flaws import find_flaws
from fwi_lightning.inversion.judging import SHOTS, judge
from fwi_lightning.inversion.quality import inspect_prediction, judge_oneself
from fwi_lightning.inversion.steps import HISTORY
from fwi_lightning.inversion.windows import seam
from fwi_lightning.report.files import write_bytes
from fwi_lightning.training.metrics import score_samples


@dataclass
class Answers:
    """Takes batches in their order, writes the maps, and gathers up what the tables and the page need.

    Attributes:
        folder: The output.
        source: Where the batches come from.
        submission: Takes the maps too. Default none.
        quality: Rows of quality.csv.
        scores: Rows of scores.csv, of samples whose truth is known.
        histories: Of samples that were refined, by their place: (steps, 2), seconds and misfit.
        velocity_counts: See `count_velocities`.
    """

    folder: Path
    source: Source
    submission: Submission | None = None
    quality: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    histories: dict[int, NDArray[np.floating]] = field(default_factory=dict)
    velocity_counts: NDArray[np.int64] | int = 0
    _waiting: list[NDArray[np.float32]] = field(default_factory=list)
    _uncertain: list[NDArray[np.float32]] = field(default_factory=list)
    _maps: Maps = field(default_factory=Maps)

    def add(self, number: int, state: State) -> None:
        """Take a batch; a file is written when its last sample has come."""
        dataset = self.source.dataset
        rows, uncertainty = self._judge(number, state)
        for row, place in enumerate(self.source.batches[number]):
            part, line = dataset.locate(place)
            name = {"name": part.name, "index": line}
            predicted = state.velocity[row]
            self.quality.append(name | rows[row])
            truth = None if part.velocity is None else read_velocity(part, line, self._maps)
            if truth is not None:
                scores = score_samples(predicted[None], torch.from_numpy(truth)[None])
                self.scores.append(name | {key: value.item() for key, value in scores.items()})
            # Zeros: the budget ended before the whole record was simulated once.
            if HISTORY in state.extras and state.extras[HISTORY][row].any():
                self.histories[place] = state.extras[HISTORY][row].numpy()
            self._waiting.append(predicted.numpy())
            if uncertainty is not None:
                self._uncertain.append(uncertainty[row].numpy())
            if line == part.samples - 1:
                self._write(part)
        self.velocity_counts = self.velocity_counts + count_velocities(state.velocity.numpy())

    def _judge(self, number: int, state: State) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
        """The rows of quality.csv of a batch, less their names; the uncertainty of its maps."""
        source = self.source
        model, windows = source.model, source.geometry(number).windows
        rows = inspect_prediction(
            state.gathers,
            state.velocity,
            state.survey,
            fits=None if state.known_misfit is None else state.known_misfit.tolist(),
            uses_source_velocity=model is not None and model.known.use != "none",
            inconsistency=None if state.answer is None else state.answer.inconsistency,
        )
        flaws = find_flaws(state.gathers, state.survey)
        heads = judge_oneself(state.answer, state.families) if state.answer else [{}] * len(state)
        expected, uncertainty = judge(state)
        seams = seam(state.velocity, windows) if windows else None
        for row, place in enumerate(source.batches[number]):
            found = ["not finite"] * (place in source.not_finite) + flaws[row]
            found += [rows[row]["flags"], *expected[row].pop("flags", [])]
            rows[row]["flags"] = ";".join(filter(None, found))
            rows[row] |= heads[row] | expected[row] | {key: values[row] for key, values in state.columns.items()}
            if SHOTS in state.extras and rows[row]["misfit"] is not None:
                by_shot = enumerate(state.extras[SHOTS][row].tolist(), start=1)
                rows[row] |= {f"misfit_shot_{shot}": value for shot, value in by_shot}
            if seams:
                rows[row]["seam"] = seams[row]
        return rows, uncertainty

    def _write(self, part: Part) -> None:
        """Write the maps of one file: (1, depth, width) for a file of one bare sample, else (N, 1, depth, width)."""
        bare = len(read_header(part.gathers).shape) == 3
        for folder, maps in (("velocity", self._waiting), ("uncertainty", self._uncertain)):
            if maps:
                content = io.BytesIO()
                np.save(content, maps[0] if bare else np.stack(maps))
                write_bytes(self.folder / folder / f"{part.name}.npy", content.getvalue())
        if self.submission is not None:
            stem = Path(part.name).name
            for line, velocity in enumerate(self._waiting):
                self.submission.write(stem if part.samples == 1 else f"{stem}_{line}", velocity[0])
        self._waiting, self._uncertain = [], []
