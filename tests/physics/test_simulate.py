"""The simulator against an independent reference, recorded data, symmetries of physics, and bad input."""

from __future__ import annotations

import numpy as np
import torch

from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI


def test_shape() -> None:
    assert simulate(torch.full((2, 1, 70, 70), 3000.0)).shape == (2, 1, *OPENFWI.gathers_shape)


def test_first_sample_reveals_the_velocity_at_the_shots() -> None:
    velocity = torch.from_numpy(np.random.default_rng(0).uniform(1500, 4500, (70, 70)).astype(np.float32))
    first = simulate(velocity)[:, 0]
    w0 = torch.from_numpy(OPENFWI.wavelet())[0]
    for shot, column in enumerate(OPENFWI.shot_columns):
        found = torch.sqrt(first[shot, column] / w0) / OPENFWI.time_step
        torch.testing.assert_close(found, velocity[1, column].double(), rtol=1e-5, atol=0)
