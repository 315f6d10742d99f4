"""Predictions as training data: simulated, each of them is an exact pair, whatever its own truth may be."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data import GathersDataset
from fwi_lightning.data.ledger import Ledger
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.whole import WholeFile
from fwi_lightning.data.writing import part_names
from fwi_lightning.models import Answer, VelocityModel
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms

CHUNK = 250
"""Samples written at a time; a start after a stop goes on with the next ones."""

BATCH = 16
"""Samples predicted and simulated at a time."""

CONTENT = "pairs of predictions and their simulated gathers"


def write_pairs(
    model: VelocityModel,
    dataset: GathersDataset,
    families: Sequence[str],
    folder: Path,
    made_of: Mapping[str, Any],
    bounds: tuple[float, float] = (1500.0, 4500.0),
) -> list[dict[str, Any]]:
    """Predict samples, simulate the predictions and write both, as data to train on.

    Args:
        model: The model.
        dataset: The samples.
        families: The families that the model knows. Each pair goes to the family that the model's family head names;
            without one, to that of its own file.
        folder: Where to, in the layout of `simulate`.
        made_of: What the pairs depend on, as plain values: a folder of others is refused.
        bounds: Lowest and highest velocity of the maps, m/s. Default (1500, 4500).

    Returns:
        A dict for each sample: family; misfit, what the prediction leaves unexplained of the gathers, see
        `relative_rms`; mae in m/s, where the data set has the truth.

    Raises:
        UserError: If the folder holds other pairs, or a sample cannot be read.
    """
    ledger = Ledger(folder, {**made_of, "samples": len(dataset), "bounds": list(bounds)}, CONTENT, "*.npy")
    folder.mkdir(parents=True, exist_ok=True)
    ledger.begin()
    finished = ledger.finished()
    chunks = {str(first): range(first, min(first + CHUNK, len(dataset))) for first in range(0, len(dataset), CHUNK)}
    done = sum(len(rows) for name, rows in chunks.items() if name in finished)
    with Progress("predicting and simulating", done, len(dataset)) as progress:
        for number, (name, rows) in enumerate(chunks.items()):
            if name not in finished:
                ledger.record(
                    name, {"rows": _write_chunk(model, dataset, families, folder, number, rows, bounds, progress)}
                )
    finished = ledger.finished()
    return [row for name in chunks for row in finished[name]["rows"]]


def _write_chunk(
    model: VelocityModel,
    dataset: GathersDataset,
    families: Sequence[str],
    folder: Path,
    number: int,
    rows: range,
    bounds: tuple[float, float],
    progress: Progress,
) -> list[dict[str, Any]]:
    """The pairs of some samples, a file for each family among them."""
    found: list[dict[str, Any]] = []
    pairs: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    for batch in _batches(rows):
        samples = [dataset[place] for place in batch]
        gathers = torch.stack([sample["gathers"] for sample in samples])
        answer = model.predict_answer(gathers, BATCH)
        velocity = answer.velocity.clamp(*bounds)
        record = simulate(velocity[:, 0], model.survey)
        names = _families(answer, families, [dataset.families[sample["family"]] for sample in samples])
        misfits = relative_rms(gathers, record).tolist()
        for row, (sample, family) in enumerate(zip(samples, names, strict=True)):
            pairs.setdefault(family, []).append((record[row].numpy(), velocity[row].numpy()))
            found.append({"family": family, "misfit": misfits[row]} | _mae(sample, velocity[row]))
        progress.advance(len(samples))
    for family, members in pairs.items():
        for path, arrays in zip(part_names(family, number), zip(*members, strict=True), strict=True):
            _save(folder / path, np.stack(arrays))
    return found


def _batches(rows: range) -> Iterator[range]:
    return (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))


def _families(answer: Answer, families: Sequence[str], own: list[str]) -> list[str]:
    if answer.family is None:
        return own
    return [families[number] for number in answer.family.argmax(dim=1).tolist()]


def _mae(sample: dict[str, Any], velocity: Tensor) -> dict[str, float]:
    return {"mae": float((velocity - sample["velocity"]).abs().mean())} if "velocity" in sample else {}


def _save(path: Path, array: NDArray[np.float32]) -> None:
    """Write an array, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array)
    file = WholeFile(path)
    try:
        file.write(content.getbuffer())
        file.finish()
        file.publish()
    except BaseException:
        file.discard()
        raise
