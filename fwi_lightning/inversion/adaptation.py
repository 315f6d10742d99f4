"""Predictions as training data: simulated, each of them is an exact pair, whatever its own truth may be."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data import GathersDataset
from fwi_lightning.data.ledger import Ledger
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.whole import WholeFile
from fwi_lightning.data.writing import part_names
from fwi_lightning.models import VelocityModel
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms

CHUNK = 100
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
            if name in finished:
                continue
            found, pairs = [], Pairs()
            for batch in (rows[first : first + BATCH] for first in range(0, len(rows), BATCH)):
                found += pairs.add(model, [dataset[place] for place in batch], dataset.families, families, bounds)
                progress.advance(len(batch))
            pairs.save(folder, number)
            ledger.record(name, {"rows": found})
    finished = ledger.finished()
    return [row for name in chunks for row in finished[name]["rows"]]


class Pairs:
    """Pairs on their way to the disk, by family.

    Attributes:
        members: Of each family the pairs of gathers and velocity.
    """

    def __init__(self) -> None:
        self.members: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}

    def add(
        self,
        model: VelocityModel,
        samples: Sequence[dict[str, Any]],
        names: Sequence[str],
        families: Sequence[str],
        bounds: tuple[float, float],
    ) -> list[dict[str, Any]]:
        """Predict and simulate a batch.

        Args:
            model: The model.
            samples: The samples of a data set.
            names: What its `family` counts in.
            families: The families that the model knows.
            bounds: As `write_pairs`.

        Returns:
            The dict of each sample, as `write_pairs`.
        """
        gathers = torch.stack([sample["gathers"] for sample in samples])
        answer = model.predict_answer(gathers, BATCH)
        velocity = answer.velocity.clamp(*bounds)
        record = simulate(velocity[:, 0].to(model.transform.scale.device), model.survey).cpu()
        misfits = relative_rms(gathers, record).tolist()
        guessed = None if answer.family is None else answer.family.argmax(dim=1).tolist()
        found = []
        for row, sample in enumerate(samples):
            family = names[sample["family"]] if guessed is None else families[guessed[row]]
            self.members.setdefault(family, []).append((record[row].numpy(), velocity[row].numpy()))
            found.append({"family": family, "misfit": misfits[row]})
            if "velocity" in sample:
                found[-1]["mae"] = float((velocity[row] - sample["velocity"]).abs().mean())
        return found

    def save(self, folder: Path, number: int) -> None:
        """Write the files of this number, a pair of them for each family."""
        for family, members in self.members.items():
            for path, arrays in zip(part_names(family, number), zip(*members, strict=True), strict=True):
                _save(folder / path, np.stack(arrays))


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
