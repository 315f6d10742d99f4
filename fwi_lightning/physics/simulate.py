"""The public function: checks its input, then hands the maps to the back end of the tensor's device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics.autograd import Simulation, back_end
from fwi_lightning.physics.scheme import largest_stable_time_step, largest_stable_velocity
from fwi_lightning.survey import OPENFWI, Survey


def simulate(velocity: Tensor, survey: Survey = OPENFWI, slowest: Tensor | None = None) -> Tensor:
    """The gathers that a survey records over velocity maps, as OpenFWI computes them.

    Acoustic, constant density, second order in time and fourth order in space, no free surface, sponge on all
    sides (see `fwi_lightning.physics.scheme`). Runs where the tensor is: on the CPU (shots in parallel;
    `NUMBA_NUM_THREADS` or `numba.set_num_threads` says on how many cores) or on a CUDA device. The result does not
    depend on the batch a map is in, nor on the number of threads.

    Differentiable with respect to `velocity`: the gradient is that of the discrete scheme, with the padding and the
    source term in it (see docs/physics.md). For OpenFWI's survey in float32 it takes about 70 MB for each thread on the
    CPU, however large the batch, and about 1.1 GB on a GPU. There is no second derivative.

    Args:
        velocity: (..., depth, width), m/s; any number of leading dimensions, also none. Example: (8, 1, 70, 70).
            float64 is computed in float64, every cell in every step, as a reference; any other floating-point type in
            float32, which moves the gathers by about 1e-6 of their rms.
        survey: The acquisition; its grid must be the map's. Default: that of OpenFWI, 5 shots of 1000 samples
            at 1 ms into 70 receivers. `Survey.surface(width=190)` for a wider map.
        slowest: (...), m/s: the velocity that the sponge is proportional to, for each map. Default: the map's
            smallest. Either way it is a constant for the gradient.

    Returns:
        (..., shots, time, receivers) on the velocity's device, float64 for float64, else float32.
        Example: (8, 1, 5, 1000, 70).

    Raises:
        UserError: If velocity is no floating-point tensor, does not fit the survey's grid, holds NaN, infinity or
            values of 0 and below, or is too fast for the survey's time step; if slowest is elsewhere or of another
            shape; in a second derivative.
    """
    maps, slowest = _prepare(velocity, survey, slowest)
    gathers = Simulation.apply(maps, slowest, survey)
    return gathers.reshape(*velocity.shape[:-2], *survey.gathers_shape)


@torch.no_grad()
def illuminate(velocity: Tensor, survey: Survey = OPENFWI, slowest: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The gathers, and how much the waves say about each cell.

    Illumination is the energy of what multiplies v^2 in the wave equation, summed over shots and steps:

        I(x) = sum of (lap p + w at the source's cell)^2,

    lap p being the scheme's difference Laplacian in 1/m^2 and w the wavelet. It weighs errors of v^2 in
    `fwi_lightning.training.losses.PDEResidual`, which derives it. The sum runs over the cells of the map alone and over
    the whole record.

    Args:
        velocity: As `simulate`.
        survey: As `simulate`.
        slowest: As `simulate`.

    Returns:
        Gathers as `simulate`, without a gradient; illumination (..., depth, width) in 1/m^4 for a wavelet without unit.

    Raises:
        UserError: As `simulate`.
    """
    maps, slowest = _prepare(velocity, survey, slowest)
    gathers, illumination = back_end(maps.device).illuminate(maps, slowest, survey)
    shape = velocity.shape[:-2]
    return gathers.reshape(*shape, *survey.gathers_shape), illumination.reshape(velocity.shape)


def _prepare(velocity: Tensor, survey: Survey, slowest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked maps (samples, depth, width) of the type to compute in, and what their sponges are proportional to."""
    _check_tensor(velocity, survey)
    dtype = torch.float64 if velocity.dtype == torch.float64 else torch.float32
    maps = velocity.to(dtype).reshape(-1, *survey.grid).contiguous()
    if slowest is None:
        slowest = maps.detach().amin(dim=(1, 2))
    else:
        _check_slowest(slowest, velocity)
        slowest = slowest.detach().to(dtype).reshape(-1).contiguous()
    _check_values(maps.detach(), slowest, survey)
    return maps, slowest


def _check_tensor(velocity: Tensor, survey: Survey) -> None:
    """Refuse what can be refused without looking at the values."""
    if not isinstance(velocity, Tensor):
        raise UserError(
            "velocity must be a torch.Tensor of shape (..., depth, width) in m/s, "
            f"got {type(velocity).__name__}: convert it with torch.as_tensor(velocity)."
        )
    if not velocity.is_floating_point():
        raise UserError(
            f"velocity must be of a floating-point type, got {velocity.dtype}: convert it with velocity.float()."
        )
    back_end(velocity.device)
    if velocity.dim() < 2 or tuple(velocity.shape[-2:]) != survey.grid:
        raise UserError(_wrong_grid(tuple(velocity.shape), survey))


def _check_slowest(slowest: Tensor, velocity: Tensor) -> None:
    """Refuse a sponge's velocity that does not belong to the maps."""
    if not isinstance(slowest, Tensor) or slowest.shape != velocity.shape[:-2]:
        found = tuple(slowest.shape) if isinstance(slowest, Tensor) else type(slowest).__name__
        raise UserError(
            f"slowest must be a tensor of shape {tuple(velocity.shape[:-2])}, one number for each map, got {found}: "
            "leave it out to take each map's smallest velocity."
        )
    if slowest.device != velocity.device:
        raise UserError(
            f"velocity is on {velocity.device} and slowest on {slowest.device}: bring both to one device with .to()."
        )


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


def _check_values(maps: Tensor, slowest: Tensor, survey: Survey) -> None:
    """Refuse velocities that no wave could have, or that this time step cannot carry.

    Args:
        maps: (samples, depth, width), m/s.
        slowest: (samples,), m/s, what the sponge is proportional to.
        survey: The acquisition.

    Raises:
        UserError: As `simulate`.
    """
    if not maps.numel():
        return
    # One transfer from the device for all of them. NaN goes through both amin and amax.
    ranges = torch.stack([maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2)), slowest]).tolist()
    for sample, (low, high, damped) in enumerate(zip(*ranges, strict=True)):
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = (~torch.isfinite(maps[sample])).nonzero().tolist()
            row, column = bad[0]
            raise UserError(
                f"velocity must be finite, got {maps[sample, row, column]:g} at row {row}, column {column} of map "
                f"{sample} ({len(bad)} of its {maps[sample].numel()} values are not finite): mend or leave out such "
                "maps."
            )
        if low <= 0:
            row, column = (maps[sample] <= 0).nonzero()[0].tolist()
            raise UserError(
                f"velocity must be positive, got {maps[sample, row, column]:g} m/s at row {row}, column {column} "
                f"of map {sample}: bring a network's scaled output back to m/s first."
            )
        if not (math.isfinite(damped) and damped > 0):
            raise UserError(f"slowest must be positive and finite, got {damped:g} m/s for map {sample}.")
        _check_stability(sample, high, damped, survey)


def _check_stability(sample: int, high: float, slowest: float, survey: Survey) -> None:
    """Refuse a map whose field would grow without bound."""
    limit = largest_stable_velocity(survey, slowest)
    if limit == 0:
        raise UserError(
            f"a sponge of {survey.sponge} cells damps too hard to be stable over map {sample}, whose slowest velocity "
            f"is {slowest:g} m/s: take a wider one, OpenFWI's is Survey(sponge=120)."
        )
    if high > limit:
        step = largest_stable_time_step(survey, slowest, high)
        raise UserError(
            f"velocity reaches {high:g} m/s in map {sample}, but the largest stable velocity is "
            f"{math.floor(limit)} m/s at a time step of {survey.time_step:g} s and cells of {survey.spacing:g} m: "
            f"lower the velocity, or the time step to {_round_down(step):g} s or less."
        )


def _round_down(value: float, digits: int = 3) -> float:
    """The value with so many significant digits, never above it, so that what a message names does work."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value)))
    return math.floor(value * scale) / scale
