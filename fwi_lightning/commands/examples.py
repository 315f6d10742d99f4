"""The samples that the page of predict.py draws: the worst, the best, and some between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.commands.predicting import Source, family_of
from fwi_lightning.data.dataset import raw_gathers, read_velocity
from fwi_lightning.data.npy import Maps
from fwi_lightning.inversion.quality import USUAL
from fwi_lightning.physics import simulate
from fwi_lightning.report.example import Example
from fwi_lightning.report.tables import cell

CHANGED = 0.5
"""m/s, mean over the cells, by which steps after the network have to change a map for both to be drawn."""

Rows = Sequence[Mapping[str, Any]]


def choose(quality: Rows, scores: Rows, count: int) -> tuple[list[int], str]:
    """Which samples to draw, the worst first.

    Args:
        quality: Rows of quality.csv.
        scores: Rows of scores.csv.
        count: How many.

    Returns:
        Their places in `quality`, evenly spread from the worst to the best, and by what: "MAE" if all have a truth,
        else "expected MAE", else "misfit"; "" where nothing is known, and they are spread over the samples.
    """
    true = {(row["name"], row["index"]): row["mae"] for row in scores}
    known = {
        "MAE": [true.get((row["name"], row["index"])) for row in quality],
        "expected MAE": [row.get("expected_mae") for row in quality],
        "misfit": [row.get("misfit") for row in quality],
    }
    spread = np.linspace(0, len(quality) - 1, min(count, len(quality))).astype(int).tolist()
    for name, values in known.items():
        # A silent sample has neither expected error nor misfit, and tells nothing to the eye.
        if sum(value is not None for value in values) > len(values) / 2:
            numbers = [-math.inf if value is None else value for value in values]
            order = sorted(range(len(quality)), key=lambda place: -numbers[place])
            return [order[rank] for rank in spread], name
    return spread, ""


def draw_examples(
    source: Source,
    folder: Path,
    quality: Rows,
    scores: Rows,
    histories: Mapping[int, NDArray[np.floating]],
    count: int,
) -> list[Example]:
    """Read the chosen samples again, with what was written of them, and simulate them where the others were.

    Args:
        source: The samples.
        folder: The output folder with velocity/ and uncertainty/.
        quality: Rows of quality.csv.
        scores: Rows of scores.csv.
        histories: Of refinements, place to (steps, 2): seconds and misfit.
        count: How many to draw.
    """
    maps = Maps()
    places, by = choose(quality, scores, count)
    examples = []
    for rank, place in enumerate(places):
        part, line = source.dataset.locate(place)
        number = next(number for number, places in enumerate(source.batches) if place in places)
        geometry, row = source.geometry(number), quality[place]
        gathers = torch.from_numpy(raw_gathers(part, line, maps)).nan_to_num(0.0, 0.0, 0.0)
        velocity = _written(folder / "velocity" / f"{part.name}.npy", line)
        assert velocity is not None
        before = record = None
        if geometry.network is not None:
            network = geometry.network(gathers[None]).velocity[0].numpy()
            before = network if np.abs(network - velocity).mean() > CHANGED else None
        if row.get("misfit") is not None:
            record = simulate(torch.from_numpy(velocity[0].clip(*USUAL)), geometry.survey).numpy()
        where = {0: "the worst", len(places) - 1: "the best"}.get(rank, "between") if len(places) > 2 and by else ""
        examples.append(
            Example(
                name=f"{part.name} #{line}" if part.samples > 1 else part.name,
                family=family_of(part),
                gathers=gathers.numpy(),
                prediction=velocity,
                truth=None if part.velocity is None else read_velocity(part, line, maps),
                before=before,
                uncertainty=_written(folder / "uncertainty" / f"{part.name}.npy", line),
                record=record,
                history=histories.get(place),
                facts=_facts(row, f"{where} by {by}" if where in ("the worst", "the best") else ""),
                survey=geometry.survey,
            )
        )
    return examples


def _written(path: Path, line: int) -> NDArray[np.float32] | None:
    """One map of a file, (1, depth, width); None if there is no such file."""
    if not path.is_file():
        return None
    content = np.load(path, mmap_mode="r")
    return np.array(content if content.ndim == 3 else content[line])


def _facts(row: Mapping[str, Any], where: str) -> str:
    """One line on a sample."""
    words = [where] if where else []
    if row.get("expected_mae") is not None:
        words.append(f"expected MAE {cell('mae', row['expected_mae'])} m/s")
    if row.get("misfit") is not None:
        words.append(f"misfit {cell('misfit', row['misfit'])}")
    words.append(f"flagged: {str(row['flags']).replace(';', ', ')}" if row.get("flags") else "no flag")
    return "  ·  ".join(words)
