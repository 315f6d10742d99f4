"""The scheme of OpenFWI in plain NumPy and PyTorch: what the simulator is judged by; no code of the package in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.survey import Survey


def simulate_plainly(
    velocity: NDArray[np.float32], survey: Survey, shot: int, dtype: type = np.float64
) -> NDArray[np.floating]:
    """One shot on the whole padded grid.

    Args:
        velocity: (depth, width), m/s.
        survey: The acquisition.
        shot: Which of its shots.
        dtype: Precision of the fields. Default float64.

    Returns:
        (time, receivers).
    """
    dt, dx, nbc = survey.time_step, survey.spacing, survey.sponge
    padded = np.pad(velocity.astype(np.float64), nbc, mode="edge")
    alpha = ((padded * dt) / dx) ** 2
    kappa = damping(padded.min(), survey) * dt
    centre = (2 - 5 * alpha - kappa).astype(dtype)
    previous = (1 - kappa).astype(dtype)
    alpha = alpha.astype(dtype)

    wavelet = survey.wavelet().astype(dtype)
    source = nbc + survey.shot_row, nbc + survey.shot_columns[shot]
    force = dtype((padded[source] * dt) ** 2)
    receivers = nbc + survey.receiver_row, nbc + np.array(survey.receiver_columns)

    p, p_previous = np.zeros(padded.shape, dtype), np.zeros(padded.shape, dtype)
    gather = np.empty((survey.samples, survey.receivers), dtype)
    for it in range(survey.samples):
        at_1 = np.roll(p, 1, 0) + np.roll(p, -1, 0) + np.roll(p, 1, 1) + np.roll(p, -1, 1)
        at_2 = np.roll(p, 2, 0) + np.roll(p, -2, 0) + np.roll(p, 2, 1) + np.roll(p, -2, 1)
        p_next = centre * p - previous * p_previous + alpha * (dtype(4 / 3) * at_1 - dtype(1 / 12) * at_2)
        p_next[source] += force * wavelet[it]
        gather[it] = p_next[receivers]
        p_previous, p = p, p_next
    return gather


def damping(slowest: float, survey: Survey) -> NDArray[np.float64]:
    """The sponge of a map: (depth + 2 nbc, width + 2 nbc), in 1/s, zero inside the map."""
    nbc, (depth, width) = survey.sponge, survey.grid
    a = (nbc - 1) * survey.spacing
    k = 3 * slowest * np.log(1e7) / (2 * a)
    damp = np.zeros((depth + 2 * nbc, width + 2 * nbc))
    for i in range(nbc):
        strip = k * (i * survey.spacing / a) ** 2
        damp[nbc - 1 - i, nbc : nbc + width] = strip
        damp[nbc + depth + i, nbc : nbc + width] = strip
        damp[:, nbc - 1 - i] = strip
        damp[:, nbc + width + i] = strip
    return damp


def simulate_all_plainly(
    shots: Sequence[tuple[NDArray[np.float32], Survey, int]],
) -> list[NDArray[np.floating]]:
    """`simulate_plainly` of each (velocity, survey, shot), on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in starmap(pool.submit, ((simulate_plainly, *s) for s in shots))]


def relative_error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Rms of the difference as a part of the rms of what was expected."""
    difference = found.astype(np.float64) - expected
    return float(np.sqrt(np.mean(difference**2) / np.mean(expected.astype(np.float64) ** 2)))


def simulate_differentiably(velocity: Tensor, survey: Survey, slowest: float | None = None) -> tuple[Tensor, Tensor]:
    """All shots in plain PyTorch, for autograd to go through: torch.roll for neighbours, nothing in place.

    Args:
        velocity: (depth, width), m/s, in the type to compute in.
        survey: The acquisition.
        slowest: m/s, what the sponge is proportional to. Default: the map's smallest, as a constant.

    Returns:
        Gathers (shots, time, receivers); illumination (depth, width).
    """
    dt, dx, nbc = survey.time_step, survey.spacing, survey.sponge
    (depth, width), dtype = survey.grid, velocity.dtype
    rows = torch.arange(-nbc, depth + nbc).clamp(0, depth - 1)
    columns = torch.arange(-nbc, width + nbc).clamp(0, width - 1)
    padded = velocity[rows][:, columns]
    alpha = (padded * dt / dx) ** 2
    kappa = torch.from_numpy(damping(slowest or velocity.min().item(), survey) * dt).to(dtype)
    wavelet = torch.from_numpy(survey.wavelet()).to(dtype)
    here = torch.zeros(survey.shots, *padded.shape, dtype=dtype)
    here[range(survey.shots), nbc + survey.shot_row, [nbc + column for column in survey.shot_columns]] = 1
    heard = nbc + survey.receiver_row, [nbc + column for column in survey.receiver_columns]

    p, p_previous, traces = torch.zeros_like(here), torch.zeros_like(here), []
    illumination = torch.zeros(depth, width, dtype=dtype)
    for it in range(survey.samples):
        at_1 = p.roll(1, 1) + p.roll(-1, 1) + p.roll(1, 2) + p.roll(-1, 2)
        at_2 = p.roll(2, 1) + p.roll(-2, 1) + p.roll(2, 2) + p.roll(-2, 2)
        laplacian = (-5 * p + 4 / 3 * at_1 - 1 / 12 * at_2) / dx**2 + here * wavelet[it]
        p, p_previous = (2 - kappa) * p - (1 - kappa) * p_previous + alpha * dx**2 * laplacian, p
        traces.append(p[:, heard[0], heard[1]])
        illumination = illumination + laplacian[:, nbc:-nbc, nbc:-nbc].square().sum(0)
    return torch.stack(traces, dim=1), illumination
