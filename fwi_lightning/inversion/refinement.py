"""Full waveform inversion of one sample: the map whose simulated record is the recorded one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import OPENFWI, Survey


@dataclass(frozen=True)
class Stage:
    """A stretch of the inversion with one prior.

    Attributes:
        weight: Of the total variation, per m/s; the data term is half the mean square of the residual.
        smoothing: m/s below which a step between cells counts less than in proportion.
        iterations: At most.
    """

    weight: float
    smoothing: float
    iterations: int


STAGES = (
    Stage(1.5e-8, 10.0, 60),
    Stage(3e-9, 3.0, 120),
    Stage(6e-10, 1.0, 200),
    Stage(1e-10, 1.0, 200),
    Stage(2e-11, 0.5, 100_000),
)
"""The weight has to go on falling: the record hardly feels the deepest part, which one that is held would flatten."""

SCALE = 1000.0
"""m/s to a unit of the optimiser."""


@dataclass
class Refined:
    """What an inversion has found.

    Attributes:
        velocity: (1, depth, width) float32 in m/s: of all maps that were simulated the one with the least misfit.
        misfit: Its relative rms residual; see `relative_rms`.
        start_misfit: That of the map it started from.
        seconds: How long it took.
        history: (seconds, misfit) of each simulation with its gradient.
    """

    velocity: Tensor
    misfit: float
    start_misfit: float
    seconds: float = 0.0
    history: list[tuple[float, float]] = field(default_factory=list)


class _Enough(Exception):  # noqa: N818 - not an error
    """The budget is spent, or the map is good enough."""


def refine(
    gathers: Tensor,
    start: Tensor,
    survey: Survey = OPENFWI,
    seconds: float = 60.0,
    misfit: float = 1e-3,
    bounds: tuple[float, float] = (1500.0, 4500.0),
    stages: Sequence[Stage] = STAGES,
    on_step: Callable[[float, float], None] | None = None,
) -> Refined:
    """Minimise the difference of the records plus a total variation whose weight falls, by L-BFGS within bounds.

        J(v) = 1/2 mean of (t (F(v) - d))^2  +  weight * sum over cells of sqrt(|grad v|^2 + smoothing^2),

    F being the simulator with its exact gradient, t the time in seconds (late arrivals, from the deep part, are weak),
    |grad v| the difference to the next cells in m/s. The velocity at the shots, which a clean record gives away, is
    held. The smallest velocity, which the sponge depends on, counts as a constant in each gradient.

    Args:
        gathers: (shots, time, receivers) as recorded.
        start: (1, depth, width) or (depth, width) in m/s, such as a network's answer.
        survey: The survey. Default: OpenFWI's.
        seconds: Time to spend; a gradient that has begun is finished. Default 60.
        misfit: Relative rms residual at which the map is good enough. Default 0.001.
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).
        stages: The priors one after the other. Default `STAGES`.
        on_step: Called with seconds and misfit after each gradient. Default: nothing.

    Returns:
        The best map found, never worse than the start in data space.

    Raises:
        UserError: If the shapes do not fit the survey, or a value is not finite.
    """
    problem = _Problem(gathers, start, survey, bounds, seconds, misfit, on_step)
    try:
        x = problem.start
        for stage in stages:
            settings = {"maxiter": stage.iterations, "maxcor": 20, "maxfun": 10**9, "ftol": 0.0, "gtol": 0.0}
            found = minimize(
                problem, x, args=(stage,), jac=True, method="L-BFGS-B", bounds=problem.limits, options=settings
            )
            x = found.x
    except _Enough:
        pass
    problem.found.seconds = time.monotonic() - problem.begun
    return problem.found


class _Problem:
    """The objective, its gradient, and the best map so far."""

    def __init__(
        self,
        gathers: Tensor,
        start: Tensor,
        survey: Survey,
        bounds: tuple[float, float],
        seconds: float,
        misfit: float,
        on_step: Callable[[float, float], None] | None,
    ) -> None:
        self.begun = time.monotonic()
        if tuple(gathers.shape) != survey.gathers_shape:
            raise UserError(
                f"gathers have shape {tuple(gathers.shape)}, the survey has {survey.gathers_shape}: give the survey "
                "that recorded them."
            )
        if tuple(start.shape[-2:]) != survey.grid or start.numel() != survey.grid[0] * survey.grid[1]:
            raise UserError(
                f"the map to start from has shape {tuple(start.shape)}, the survey has {survey.grid}: give a map of "
                "its grid."
            )
        if not (gathers.isfinite().all() and start.isfinite().all()):
            raise UserError("gathers and the map to start from must be finite numbers: mend or leave out the sample.")
        if not 0 < bounds[0] < bounds[1]:
            raise UserError(f"bounds must be the lowest and the highest velocity in m/s, got {list(bounds)}.")
        self.gathers, self.survey = gathers.float().cpu(), survey
        self.seconds, self.enough, self.on_step = seconds, misfit, on_step
        # Recorded data may end with a sample of zeros, which is none of the ground's.
        weight = survey.time_step * torch.arange(survey.samples, dtype=torch.float32)[:, None]
        weight[-1] = 0
        self.weight = weight
        velocity = start.detach().float().cpu().reshape(survey.grid).clamp(*bounds)
        low, high = np.full(survey.grid, bounds[0]), np.full(survey.grid, bounds[1])
        known = source_velocity(self.gathers[None], survey)[0]
        for column, value in zip(survey.shot_columns, known.tolist(), strict=True):
            if bounds[0] <= value <= bounds[1]:  # not for NaN
                velocity[survey.shot_row, column] = value
                low[survey.shot_row, column] = high[survey.shot_row, column] = value
        self.limits = list(zip((low / SCALE).ravel(), (high / SCALE).ravel(), strict=True))
        self.start = velocity.double().numpy().ravel() / SCALE
        record = simulate(velocity, survey)
        first = float(relative_rms(self.gathers[None], record[None])[0])
        self.found = Refined(velocity[None].clone(), first, first)

    def __call__(self, x: NDArray[np.float64], stage: Stage) -> tuple[float, NDArray[np.float64]]:
        """Objective and gradient in units of the optimiser."""
        if self.found.misfit <= self.enough or time.monotonic() - self.begun > self.seconds:
            raise _Enough
        velocity = torch.from_numpy(x.reshape(self.survey.grid) * SCALE).float().requires_grad_()
        record = simulate(velocity, self.survey)
        data = 0.5 * (self.weight * (record - self.gathers)).square().mean()
        total = data + stage.weight * total_variation(velocity, stage.smoothing)
        (gradient,) = torch.autograd.grad(total, velocity)
        self._note(velocity.detach(), record.detach())
        return float(total.detach()), gradient.double().numpy().ravel() * SCALE

    def _note(self, velocity: Tensor, record: Tensor) -> None:
        misfit = float(relative_rms(self.gathers[None], record[None])[0])
        seconds = time.monotonic() - self.begun
        self.found.history.append((seconds, misfit))
        if misfit < self.found.misfit:
            self.found.velocity, self.found.misfit = velocity[None].clone(), misfit
        if self.on_step is not None:
            self.on_step(seconds, misfit)


def total_variation(velocity: Tensor, smoothing: float) -> Tensor:
    """Sum over cells of sqrt(|grad v|^2 + smoothing^2), less that of a uniform map (Rudin, Osher and Fatemi, 1992).

    Args:
        velocity: (depth, width) in m/s.
        smoothing: m/s.
    """
    down = torch.nn.functional.pad(velocity.diff(dim=0), (0, 0, 0, 1))
    across = torch.nn.functional.pad(velocity.diff(dim=1), (0, 1))
    return ((down.square() + across.square() + smoothing**2).sqrt() - smoothing).sum()
