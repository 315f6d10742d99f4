"""The random field in the chain: fitted on validation predictions, used for the families that it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.quality import USUAL, misfit
from fwi_lightning.inversion.state import State
from fwi_lightning.inversion.steps import Step
from fwi_lightning.models.crf import ContinuousCRF

ROUNDS = 40
"""Steps of Adam that fit the three or four numbers of a field."""

BATCH = 32
"""Maps in each of them."""

SURE = 2.0
"""Standard errors by which a family's MAE has to fall for the field to be on for it."""

FEWEST = 5
"""Fewest samples of a family that decide it."""

UNKNOWN = ""
"""The family of a sample of which none is known."""


def fit_crf(
    prediction: Tensor,
    truth: Tensor,
    families: Sequence[str],
    scale: Tensor | None = None,
    robust: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit a field to predictions whose truth is known, and find out which families it helps.

    Every second sample is fitted to, the others decide: the field is on for a family whose MAE falls by `SURE` standard
    errors of the paired difference, over at least `FEWEST` samples. For samples of unknown family it is on if it
    is on for any, or helps all together; `RandomField` then asks the simulator sample by sample.

    Args:
        prediction: (samples, 1, depth, width) in m/s.
        truth: The same shape, m/s.
        families: The family of each sample.
        scale: Expected error of each cell, the same shape, m/s. Default: the same everywhere.
        robust: Which form; see `ContinuousCRF`. The robust one takes 5 times as long. Default False.
        seed: Of the order of the samples. Default 0.

    Returns:
        "field", the settings of `ContinuousCRF`; "families", those that it helps, with `UNKNOWN` if it is on for
        samples of unknown family; "changes", the change of the MAE of each family in m/s, negative where it helps.

    Raises:
        UserError: If there are fewer than four samples.
    """
    if len(prediction) < 4:
        raise UserError(f"a random field needs at least 4 samples with their truth, got {len(prediction)}.")
    crf = ContinuousCRF(robust, tolerance=1e-3)
    optimiser = torch.optim.Adam(crf.parameters(), lr=0.15)
    rng = np.random.default_rng(seed)
    fitted = np.arange(0, len(prediction), 2)
    for _ in range(ROUNDS):
        rows = torch.from_numpy(rng.choice(fitted, min(BATCH, len(fitted)), replace=False))
        loss = (crf(prediction[rows], _rows(scale, rows)) - truth[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    deciding = torch.arange(1, len(prediction), 2)
    changes = []
    with torch.no_grad():
        for rows in deciding.split(BATCH):
            improved = crf(prediction[rows], _rows(scale, rows))
            before, after = ((maps - truth[rows]).abs().mean(dim=(1, 2, 3)) for maps in (prediction[rows], improved))
            changes.append((after - before).double().numpy())
    change = np.concatenate(changes)
    names = np.asarray(families)[deciding.numpy()]
    groups = {str(name): change[names == name] for name in sorted(set(names)) if name != UNKNOWN}
    on = [name for name, values in groups.items() if _falls(values)]
    return {
        "field": crf.settings(),
        "families": on + [UNKNOWN] * bool(on or _falls(change)),
        "changes": {name: float(values.mean()) for name, values in (groups | {UNKNOWN: change}).items()},
    }


def _falls(changes: np.ndarray) -> bool:
    """Whether a mean is below zero by more than chance."""
    if len(changes) < FEWEST:
        return False
    return bool(changes.mean() < -SURE * changes.std(ddof=1) / np.sqrt(len(changes)))


def _rows(scale: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if scale is None else scale[rows]


@torch.no_grad()
def apply_crf(
    fitted: Mapping[str, Any],
    velocity: Tensor,
    families: Sequence[str],
    scale: Tensor | None = None,
    only: Sequence[str] | None = None,
) -> tuple[Tensor, list[bool]]:
    """The maps of least energy of the samples of some families; the others stay.

    Args:
        fitted: As `fit_crf` gives.
        velocity: (batch, 1, depth, width) in m/s.
        families: The family of each sample, `UNKNOWN` where it is not known.
        scale: As for `fit_crf`.
        only: The families. Default: those that it helps.

    Returns:
        The maps, and of which samples they are new.
    """
    crf = ContinuousCRF(**fitted["field"])
    on = fitted["families"] if only is None else only
    chosen = [family in on for family in families]
    rows = torch.tensor(chosen).nonzero()[:, 0]
    improved = velocity.clone()
    if len(rows):
        improved[rows] = crf(velocity[rows], _rows(scale, rows))
    return improved, chosen


class RandomField(Step):
    """Takes the field that the checkpoint's calibration holds to the samples of the families that it helps.

    A sample of unknown family keeps the new map only if it explains more of the record.

    Args:
        families: The families to use it for; `UNKNOWN`, "", stands for samples of which none is known. Default None:
            those for which it lowered the validation MAE.
    """

    def __init__(self, families: Sequence[str] | None = None) -> None:
        self.families = families

    def run(self, state: State, part: int) -> None:
        """Solve for the batch; without a calibration in the checkpoint it stays as it is."""
        calibration = state.calibration
        if calibration is None or not calibration.crf:
            state.note("crf: the checkpoint holds none: python -m fwi_lightning calibrate ckpt=... fits one")
            state.columns["crf"] = [False] * len(state)
            return
        scale = None if state.answer is None else state.answer.scale
        families = state.family_names()
        velocity, chosen = apply_crf(calibration.crf, state.velocity, families, scale, self.families)
        state.columns["crf"] = chosen
        if not any(chosen):
            return
        rows = torch.tensor([on and not name for on, name in zip(chosen, families, strict=True)]).nonzero()[:, 0]
        if len(rows):
            # Which family it is does not matter where the record itself says whether the map is better.
            misfits = misfit(state.gathers[rows], velocity[rows].clamp(*USUAL), state.survey)
            for row in rows[misfits >= state.misfit()[rows]].tolist():
                velocity[row], chosen[row] = state.velocity[row], False
        state.columns["crf"] = chosen
        state.improve(velocity)
