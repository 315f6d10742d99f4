"""What members say of samples that they were not trained on, kept on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data import GathersDataset
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.ensemble.rows import fill_rows
from fwi_lightning.models import VelocityModel
from fwi_lightning.training.checkpoint import load_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """A member's answers for the samples that it held out.

    Attributes:
        numbers: (samples,) global numbers, ascending.
        velocity: (samples, depth, width) float32 in m/s.
        scale: The same of the expected error, from an uncertainty head; else None.
        family: (samples, families) logits, from a family head; else None.
    """

    numbers: NDArray[np.int64]
    velocity: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    family: NDArray[np.float32] | None = None


def predict_held_out(
    checkpoint: Path, digest: str, dataset: GathersDataset, folder: Path, batch_size: int, device: str
) -> Predictions | None:
    """Predict the held-out samples of a member, or read what an earlier start predicted.

    Args:
        checkpoint: The member.
        digest: SHA-256 of its file: another one is predicted anew.
        dataset: The samples that it was not trained on.
        folder: Where the arrays are kept.
        batch_size: Samples at a time.
        device: Where to predict.

    Returns:
        The predictions; None, with a warning, if the member fails.
    """
    which = hashlib.sha256(digest.encode() + dataset.rows.tobytes()).hexdigest()[:12]
    stem = folder / f"{checkpoint.resolve().parent.parent.name}-{which}"
    try:
        model = load_model(checkpoint, device)
        return _predict(model, stem, dataset, batch_size)
    except (UserError, RuntimeError, ValueError) as error:
        log.warning("%s fails (%s): it is left out.", checkpoint, str(error).splitlines()[0] if str(error) else error)
        return None


def _predict(model: VelocityModel, stem: Path, dataset: GathersDataset, batch_size: int) -> Predictions:
    count = len(dataset)
    shapes: dict[str, tuple[int, ...]] = {"velocity": (count, *model.survey.grid)}
    if model.outputs > 1:
        shapes["scale"] = shapes["velocity"]
    if model.families:
        shapes["family"] = (count, len(model.families))

    def compute(places: range) -> dict[str, NDArray[np.float32]]:
        answer = model.predict_answer(torch.stack([dataset[place]["gathers"] for place in places]), batch_size)
        if not answer.velocity.isfinite().all():
            raise ValueError("its maps are not finite")
        rows = {"velocity": answer.velocity[:, 0].numpy()}
        if answer.scale is not None:
            rows["scale"] = answer.scale[:, 0].numpy()
        if answer.family is not None:
            rows["family"] = answer.family.numpy()
        return rows

    arrays = fill_rows(stem, shapes, compute, f"out of fold: {stem.name}", batch_size)
    return Predictions(dataset.rows, arrays["velocity"], arrays.get("scale"), arrays.get("family"))


def group_velocity(
    predictions: Sequence[Predictions], numbers: NDArray[np.int64], field: str = "velocity"
) -> NDArray[np.float32]:
    """Mean over the members of a group that were not trained on a sample, for each of some samples.

    Args:
        predictions: Of the group's members.
        numbers: (samples,) global numbers; each is held out by one member at least.
        field: "velocity" or "scale". Default "velocity".

    Returns:
        (samples, depth, width) float32.
    """
    total: NDArray[np.float32] | None = None
    counts = np.zeros(len(numbers), np.float32)
    for one in predictions:
        values = getattr(one, field)
        if total is None:
            total = np.zeros((len(numbers), *values.shape[1:]), np.float32)
        places = np.minimum(np.searchsorted(one.numbers, numbers), len(one.numbers) - 1)
        known = one.numbers[places] == numbers
        total[known] += values[places[known]]
        counts += known
    assert total is not None
    return total / counts[:, None, None]
