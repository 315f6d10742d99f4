"""The misfit of one sample as a function of what is sought, and the best map that was seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.curvature import BATCH
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.physics.wavefields import wavefields
from fwi_lightning.survey import OPENFWI, Survey


@dataclass
class Refined:
    """What an inversion has found.

    Attributes:
        velocity: (1, depth, width) float32 in m/s: of all maps that were simulated the one with the least misfit.
        misfit: Its relative rms residual; see `relative_rms`.
        start_misfit: That of the map it started from.
        seconds: How long it took.
        history: (seconds, misfit) of each simulation of the whole record.
    """

    velocity: Tensor
    misfit: float
    start_misfit: float
    seconds: float = 0.0
    history: list[tuple[float, float]] = field(default_factory=list)


class Enough(Exception):  # noqa: N818 - not an error
    """The budget is spent, or the map is good enough."""


class Objective:
    """J(v) = 1/2 mean of (t (F(v) - d))^2, t the time in seconds.

    Late arrivals, from the deep part, are weak: the time makes up for it. The velocity at the shots, which a clean
    record gives away, is held. The smallest velocity, which the sponge depends on, counts as a constant.

    Attributes:
        start: (depth, width) float64 in m/s, the map to start from, within the bounds and right at the shots.
        held: (depth, width), the cells whose velocity is known.
        weight: (time,), t in seconds; 0 for the last sample, which some families store as zeros.
        found: The best map so far.
        simple: (depth, width) float64 in m/s, a map of few areas that explains nearly as much; None: there is none yet.
        pace: Seconds that a simulation took of late.

    Args:
        gathers: (shots, time, receivers) as recorded.
        start: (1, depth, width) or (depth, width) in m/s.
        survey: The survey.
        bounds: Lowest and highest velocity, m/s.
        seconds: Time to spend.
        misfit: Relative rms residual at which the map is good enough.
        on_step: Called after each simulation with seconds and the least misfit so far.

    Raises:
        UserError: If the shapes do not fit the survey, or a value is not finite.
    """

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
        compile_kernels()
        self.begun = time.monotonic()
        _check(gathers, start, survey, bounds)
        self.gathers, self.survey, self.bounds = gathers.float().cpu(), survey, bounds
        self._seconds, self._enough, self._on_step = seconds, misfit, on_step
        self.pace = 0.0
        self.weight = survey.time_step * torch.arange(survey.samples, dtype=torch.float32)
        self.weight[-1] = 0
        velocity = start.detach().float().cpu().reshape(survey.grid).clamp(*bounds)
        self.held = torch.zeros(survey.grid, dtype=torch.bool)
        known = source_velocity(self.gathers[None], survey)[0]
        for column, value in zip(survey.shot_columns, known.tolist(), strict=True):
            if bounds[0] <= value <= bounds[1]:  # not for NaN
                velocity[survey.shot_row, column] = value
                self.held[survey.shot_row, column] = True
        self.start = velocity.double()
        first = float(relative_rms(self.gathers[None], simulate(velocity, survey)[None])[0])
        self.found = Refined(velocity[None].clone(), first, first)
        self.simple: Tensor | None = None

    @contextmanager
    def within(self, share: float) -> Iterator[Objective]:
        """The same of the first part of the record alone: it knows of the upper part of the map, and takes less time.

        It never finds a map good enough. What it has found when the budget ends is judged here.

        Args:
            share: Of the record; all of it is this objective itself.

        Yields:
            Its misfit. `on_step` hears of its simulations, with the misfit of the whole record.
        """
        if share == 1:
            yield self
            return
        survey = replace(self.survey, samples=math.ceil(share * self.survey.samples))
        gathers = self.gathers[:, : survey.samples]
        part = Objective(gathers, self.start, survey, self.bounds, self.left(), -1.0, self._tell)
        try:
            yield part
        except Enough:
            self.adopt(part.found.velocity)
            raise

    def _tell(self, *_: float) -> None:
        """Say that something was simulated, and how good the best map is."""
        if self._on_step is not None:
            self._on_step(time.monotonic() - self.begun, self.found.misfit)

    def left(self) -> float:
        """Seconds that are left of the budget."""
        return self._seconds - (time.monotonic() - self.begun)

    def check(self, needed: float = 0.0) -> None:
        """End the inversion if the map is good enough or fewer seconds are left than needed.

        Raises:
            Enough: If so.
        """
        if self.found.misfit <= self._enough or self.left() < needed:
            raise Enough

    def value(self, velocity: Tensor) -> float:
        """J at a map, (depth, width) float64 in m/s."""
        return self.values(velocity[None])[0]

    def values(self, velocities: Tensor) -> list[float]:
        """J at maps, (maps, depth, width) float64 in m/s; together they take less time than one after the other."""
        found = []
        for maps in velocities.float().split(BATCH):
            self.check(len(maps) * self.pace)
            begun = time.monotonic()
            with torch.no_grad():
                records = simulate(maps, self.survey)
            self.pace = (time.monotonic() - begun) / len(maps)
            found += [self._judge(*pair) for pair in zip(maps, records, strict=True)]
        return found

    def gradient(self, velocity: Tensor) -> tuple[float, Tensor]:
        """J and its gradient, (depth, width) float64, at a map, (depth, width) float64 in m/s."""
        self.check()
        variable = velocity.float().requires_grad_()
        record = simulate(variable, self.survey)
        residual = self.weight[:, None] * (record.detach() - self.gathers)
        record.backward(self.weight[:, None] * residual / residual.numel())
        assert variable.grad is not None
        return self._judge(variable.detach(), record.detach()), variable.grad.double()

    def adopt(self, velocity: Tensor, history: Sequence[tuple[float, float]] = (), factor: float = 1.0) -> None:
        """Take over a map from elsewhere, (1, depth, width) in m/s, if it explains the record better.

        Args:
            velocity: The map.
            history: How it was found, to be added to what is there.
            factor: By which its misfit may be larger, as long as it is below that of the start. Default 1.
        """
        self.found.history.extend(history)
        misfit = float(relative_rms(self.gathers[None], simulate(velocity, self.survey))[0])
        if misfit < min(factor * self.found.misfit, self.found.start_misfit):
            self.found.velocity, self.found.misfit = velocity, misfit

    def _judge(self, velocity: Tensor, record: Tensor) -> float:
        misfit = float(relative_rms(self.gathers[None], record[None])[0])
        self.found.history.append((time.monotonic() - self.begun, misfit))
        if misfit < self.found.misfit:
            self.found.velocity, self.found.misfit = velocity[None].clone(), misfit
        self._tell()
        return 0.5 * float((self.weight[:, None] * (record - self.gathers)).double().square().mean())


@cache
def compile_kernels() -> None:
    """Have the wave equation compiled, which an installation does once: a budget of seconds shall not pay for it."""
    survey = replace(OPENFWI, samples=2)
    velocity = torch.full(survey.grid, 2000.0, requires_grad=True)
    simulate(velocity, survey).sum().backward()
    wavefields(velocity, survey)


def _check(gathers: Tensor, start: Tensor, survey: Survey, bounds: tuple[float, float]) -> None:
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
