"""The scheme of OpenFWI in plain NumPy float64: what the simulator is judged by. Shares no code with the
package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.survey import Survey


def reference(
    velocity: NDArray[np.float32], survey: Survey, dtype: type = np.float64
) -> NDArray[np.floating]:
    """Gathers of the survey over each map, every shot on the whole padded grid.

    Args:
        velocity: (samples, depth, width), m/s.
        survey: The acquisition.
        dtype: Precision of the computation. Default float64.

    Returns:
        (samples, shots, time, receivers).
    """
    dt, dx, nbc = survey.time_step, survey.spacing, survey.sponge
    padded = np.pad(velocity.astype(np.float64), ((0, 0), (nbc, nbc), (nbc, nbc)), mode="edge")
    alpha = ((padded * dt) / dx) ** 2
    kappa = np.stack([damping(v.min(), survey) for v in velocity.astype(np.float64)]) * dt

    # One axis for the shots: (samples, 1, z, x) against the fields' (samples, shots, z, x).
    alpha, kappa = alpha[:, None].astype(dtype), kappa[:, None].astype(dtype)
    centre, old = 2 - 5 * alpha - kappa, 1 - kappa
    near, far = alpha * dtype(4 / 3), alpha * dtype(-1 / 12)

    wavelet = survey.wavelet().astype(dtype)
    shots = np.arange(survey.shots)
    source_row, source_columns = nbc + survey.shot_row, nbc + np.array(survey.shot_columns)
    force = ((padded[:, source_row, source_columns] * dt) ** 2).astype(dtype)
    receiver_row, receiver_columns = nbc + survey.receiver_row, nbc + np.array(survey.receiver_columns)

    p = np.zeros((len(velocity), survey.shots, *padded.shape[1:]), dtype)
    p_previous = np.zeros_like(p)
    gathers = np.empty((len(velocity), survey.shots, survey.samples, survey.receivers), dtype)
    for it in range(survey.samples):
        distance_1 = np.roll(p, 1, 2) + np.roll(p, -1, 2) + np.roll(p, 1, 3) + np.roll(p, -1, 3)
        distance_2 = np.roll(p, 2, 2) + np.roll(p, -2, 2) + np.roll(p, 2, 3) + np.roll(p, -2, 3)
        p_next = centre * p - old * p_previous + near * distance_1 + far * distance_2
        p_next[:, shots, source_row, source_columns] += force * wavelet[it]
        gathers[:, :, it] = p_next[:, :, receiver_row, receiver_columns]
        p_previous, p = p, p_next
    return gathers


def damping(slowest: float, survey: Survey) -> NDArray[np.float64]:
    """The sponge of one map: (depth + 2 nbc, width + 2 nbc), in 1/s, zero inside the map."""
    nbc, (depth, width) = survey.sponge, survey.grid
    a = (nbc - 1) * survey.spacing
    k = 3 * slowest * np.log(1e7) / (2 * a)
    strip = k * (np.arange(nbc) * survey.spacing / a) ** 2
    damp = np.zeros((depth + 2 * nbc, width + 2 * nbc))
    for i in range(nbc):
        damp[nbc - 1 - i, nbc : nbc + width] = strip[i]
        damp[nbc + depth + i, nbc : nbc + width] = strip[i]
        damp[:, nbc - 1 - i] = strip[i]
        damp[:, nbc + width + i] = strip[i]
    return damp
