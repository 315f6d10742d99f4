"""The public function: checks its input, then hands the maps to the back end of the tensor's device."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.errors import UserError
from fwi_lightning.physics.cpu import simulate_cpu
from fwi_lightning.physics.scheme import largest_stable_time_step, largest_stable_velocity
from fwi_lightning.survey import OPENFWI, Survey


def simulate(velocity: torch.Tensor, survey: Survey = OPENFWI) -> torch.Tensor:
    """The gathers that a survey records over velocity maps, as OpenFWI computes them.

    Acoustic, constant density, second order in time and fourth order in space, no free surface, sponge on all
    sides (see `fwi_lightning.physics.scheme`). Shots run in parallel on the CPU; `NUMBA_NUM_THREADS` or
    `numba.set_num_threads` says on how many cores. The result does not depend on the batch a map is in, nor
    on the number of threads.

    Args:
        velocity: (..., depth, width), m/s, in any floating-point type; any number of leading dimensions, also
            none.
            Example: (8, 1, 70, 70). Computed in float32 whatever the type, float64 too: that moves the
                gathers by
            about 1e-6 of their rms.
        survey: The acquisition; its grid must be the map's. Default: that of OpenFWI, 5 shots of 1000 samples
            at 1 ms into 70 receivers. `Survey.surface(width=190)` for a wider map.

    Returns:
        (..., shots, time, receivers) float32 on the CPU. Example: (8, 1, 5, 1000, 70).

    Raises:
        UserError: If velocity is no floating-point tensor on the CPU, requires a gradient, does not fit the
            survey's grid, holds NaN, infinity or values of 0 and below, or is too fast for the survey's time
            step.
    """
    _check_tensor(velocity, survey)
    maps = velocity.detach().to(torch.float32).reshape(-1, *survey.grid).contiguous().numpy()
    _check_values(maps, survey)
    gathers = torch.from_numpy(simulate_cpu(maps, survey))
    return gathers.reshape(*velocity.shape[:-2], *survey.gathers_shape)


def _check_tensor(velocity: torch.Tensor, survey: Survey) -> None:
    """Refuse what can be refused without looking at the values."""
    if not isinstance(velocity, torch.Tensor):
        raise UserError(
            "velocity must be a torch.Tensor of shape (..., depth, width) in m/s, "
            f"got {type(velocity).__name__}: convert it with torch.as_tensor(velocity)."
        )
    if not velocity.is_floating_point():
        raise UserError(
            f"velocity must be of a floating-point type, got {velocity.dtype}: convert it with velocity.float()."
        )
    if velocity.requires_grad and torch.is_grad_enabled():
        raise UserError(
            "velocity requires a gradient, which simulate does not compute yet: "
            "pass velocity.detach() or call it under torch.no_grad()."
        )
    if velocity.device.type != "cpu":
        raise UserError(
            f"velocity must be on the CPU, the only device simulate runs on yet, got {velocity.device}: "
            "pass velocity.cpu()."
        )
    if velocity.dim() < 2 or tuple(velocity.shape[-2:]) != survey.grid:
        raise UserError(_wrong_grid(tuple(velocity.shape), survey))


def _wrong_grid(shape: tuple[int, ...], survey: Survey) -> str:
    """The sentence for a map that does not fit the survey."""
    found = f"velocity of shape {shape} does not fit the survey's grid of {survey.grid} (depth, width)"
    if len(shape) < 2:
        return f"{found}: pass a tensor of shape (..., {survey.grid[0]}, {survey.grid[1]})."
    depth, width = shape[-2:]
    return (
        f"{found}: pass a map of that grid, or a survey for this one, "
        f"such as survey=Survey.surface(width={width}, depth={depth})."
    )


def _check_values(maps: NDArray[np.float32], survey: Survey) -> None:
    """Refuse velocities that no wave could have, or that this time step cannot carry.

    Args:
        maps: (samples, depth, width), m/s.
        survey: The acquisition.

    Raises:
        UserError: As `simulate`.
    """
    if not maps.size:
        return
    slowest, fastest = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))  # NaN goes through both
    if not (np.isfinite(slowest).all() and np.isfinite(fastest).all()):
        bad = np.argwhere(~np.isfinite(maps))
        sample, row, column = bad[0]
        raise UserError(
            f"velocity must be finite, got {maps[sample, row, column]} at row {row}, column {column} of "
            f"map {sample} ({len(bad)} of {maps.size} values are not finite): mend or leave out such maps."
        )
    if slowest.min() <= 0:
        sample, row, column = np.argwhere(maps <= 0)[0]
        raise UserError(
            f"velocity must be positive, got {maps[sample, row, column]:g} m/s at row {row}, column {column} "
            f"of map {sample}: bring a network's scaled output back to m/s first."
        )
    for sample, (low, high) in enumerate(zip(slowest.tolist(), fastest.tolist(), strict=True)):
        limit = largest_stable_velocity(survey, low)
        if limit == 0:
            raise UserError(
                f"a sponge of {survey.sponge} cells damps too hard to be stable over map {sample}, whose "
                f"slowest velocity is {low:g} m/s: take a wider one, OpenFWI's is Survey(sponge=120)."
            )
        if high > limit:
            step = largest_stable_time_step(survey, low, high)
            raise UserError(
                f"velocity reaches {high:g} m/s in map {sample}, but the largest stable velocity is "
                f"{math.floor(limit)} m/s at a time step of {survey.time_step:g} s and cells of "
                f"{survey.spacing:g} m: "
                f"lower the velocity, or the time step to {_round_down(step):g} s or less."
            )


def _round_down(value: float, digits: int = 3) -> float:
    """The value with so many significant digits, never above it, so that what a message names does work."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value)))
    return math.floor(value * scale) / scale
