"""What an answer is worth, told without its truth: the columns of quality.csv and the map of uncertainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.inversion.calibration import NETWORK, cell_features, expected_mae, sample_features, uncertainty
from fwi_lightning.inversion.quality import USUAL
from fwi_lightning.inversion.state import State
from fwi_lightning.physics import illuminate
from fwi_lightning.physics.misfit import relative_rms, relative_rms_by_shot

REMEMBERED = "features"
"""Where `State.extras` keeps what was known after each step: REMEMBERED/STEP/FEATURE."""

LIT = "illumination"
"""Where `State.maps` has the illumination of the maps that were simulated last."""

SHOTS = "misfit_shots"
"""Where `State.extras` has the misfit of each shot, (batch, shots)."""

MEMBERS = "spread"
"""Where `State.maps` has the standard deviation of the members of test-time augmentation."""


def remember(state: State, step: str) -> None:
    """Keep what is known of the maps after a step, should nothing be known of the errors after later ones.

    Args:
        state: The batch.
        step: The step that was done last, or `NETWORK`.
    """
    misfits = {}
    if state.known_misfit is not None:
        misfits["misfit"] = state.known_misfit
        if step != NETWORK and "misfit_network" in state.columns:
            misfits["misfit_network"] = torch.tensor(state.columns["misfit_network"])
    for name, values in sample_features(state.velocity, state.answer, misfits, state.maps.get(MEMBERS)).items():
        state.extras[f"{REMEMBERED}/{step}/{name}"] = torch.from_numpy(values)


def recall(state: State, step: str) -> dict[str, NDArray[np.float64]]:
    """What `remember` kept of a step: arrays (batch,) by name, as `sample_features`."""
    prefix = f"{REMEMBERED}/{step}/"
    return {
        name.removeprefix(prefix): values.numpy() for name, values in state.extras.items() if name.startswith(prefix)
    }


def look(state: State) -> None:
    """Simulate the maps of a batch: the state then knows their misfit, also by shot, and their illumination."""
    # A network may overshoot; the simulator takes only what its time step can carry.
    record, illumination = illuminate(state.velocity[:, 0].clamp(*USUAL), state.survey)
    record = record[:, :, :: state.survey.thinning_of(state.gathers.shape[2])]
    if state.known_misfit is None:
        state.improve(state.velocity, relative_rms(state.gathers, record))
    state.maps[LIT] = illumination[:, None]
    state.extras[SHOTS] = relative_rms_by_shot(state.gathers, record)


def judge(state: State) -> tuple[list[dict[str, Any]], Tensor | None]:
    """What the calibration says of the answers of a batch.

    Args:
        state: The batch after its chain, or as far as that has come.

    Returns:
        For each sample a dict of columns of quality.csv: expected_mae in m/s; expected_mae_of, the step that it is the
        error after: the last one that the calibration knows; flags, a list: "aberrant" (expected MAE beyond all that
        validation saw), "misfit beyond validation". {} for silent samples. And the map that 68 % of the errors are
        expected within, (batch, 1, depth, width) in m/s. Without a calibration {} for all, and None.
    """
    if state.calibration is None:
        return [{} for _ in range(len(state))], None
    prefix = f"{REMEMBERED}/"
    done = list(dict.fromkeys(name.split("/")[1] for name in state.extras if name.startswith(prefix)))
    if not done:
        remember(state, NETWORK)
        done = [NETWORK]
    step = state.calibration.latest(done)
    if step is None:
        return [{} for _ in range(len(state))], None
    expectation, features = state.calibration.expectations[step], recall(state, step)
    expected = expected_mae(expectation, features)
    silent = (state.gathers.abs().amax(dim=(1, 2, 3)) == 0).tolist()
    rows: list[dict[str, Any]] = []
    for sample, value in enumerate(expected.tolist()):
        flags = ["aberrant"] * (value > expectation.largest_mae)
        misfit = math.exp(features["misfit"][sample]) if "misfit" in features else 0.0
        flags += ["misfit beyond validation"] * (misfit > expectation.largest_misfit)
        rows.append({} if silent[sample] else {"expected_mae": value, "expected_mae_of": step, "flags": flags})
    scale = None if state.answer is None else state.answer.scale
    cells = cell_features(state.velocity, expected, scale, state.maps.get(MEMBERS), state.maps.get(LIT))
    return rows, torch.from_numpy(uncertainty(expectation, cells))
