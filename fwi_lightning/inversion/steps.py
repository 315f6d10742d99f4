"""The steps of the chain that repair a map by the simulator; each is a class with the settings of its conf key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.fixed_point import correct
from fwi_lightning.inversion.judging import look
from fwi_lightning.inversion.refinement import AUTO, check_prior, prior_of, refine
from fwi_lightning.inversion.state import State
from fwi_lightning.physics import simulate

HISTORY = "history"
"""Where `State.extras` has seconds and misfit of each sample's refinement, (batch, `POINTS`, 2)."""

POINTS = 64
"""Points that a history is thinned out to."""


class Step(ABC):
    """A step of the chain; subclasses check their settings when they are built, before any work is done.

    Attributes:
        parts: Calls of `run` that it takes for a batch; a time budget may end between two of them, or begin the next
            batch first. Default 1.
        timed: Whether it works as long as it is given, so that a time budget is shared out among the samples. Default
            False.
        asks_network: Whether it needs a network. Default False.
    """

    parts: int = 1
    timed: bool = False
    asks_network: bool = False

    @abstractmethod
    def run(self, state: State, part: int) -> None:
        """Change the state; see `State.improve`.

        Args:
            state: The batch.
            part: Which part, 0 to `parts` - 1.
        """


class FixedPoint(Step):
    """Takes off the network's own error, as far as it shows on its simulated answer; see `correct`.

    Args:
        steps: Repetitions. Default 3.
        factors: Of the correction, tried in this order until the misfit falls. Default (1, 0.7, 0.4, 0.2).
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).

    Raises:
        UserError: If a setting is out of range.
    """

    asks_network = True

    def __init__(
        self,
        steps: int = 3,
        factors: Sequence[float] = (1.0, 0.7, 0.4, 0.2),
        bounds: tuple[float, float] = (1500.0, 4500.0),
    ) -> None:
        if steps < 1 or not factors:
            raise UserError(
                f"inference.fixed_point needs at least 1 step and 1 factor, got steps={steps}, {list(factors)}."
            )
        self.steps, self.factors, self.bounds = steps, factors, check_bounds("fixed_point", bounds)

    def run(self, state: State, part: int) -> None:
        """Correct the batch."""
        network = state.network
        assert network is not None
        assert state.answer is not None
        velocity, misfit = correct(
            state.gathers,
            lambda gathers: network(gathers).velocity,
            lambda maps: simulate(maps, state.survey),
            start=state.velocity,
            answer=state.answer.velocity,
            steps=self.steps,
            factors=self.factors,
            bounds=self.bounds,
        )
        state.improve(velocity, misfit)


class Refine(Step):
    """Full waveform inversion of each sample; see `refine`.

    Args:
        seconds: For each sample, at most. Default 60.
        misfit: Relative rms at which a map is good enough. Default 0.000001.
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).
        prior: As `refine`; "auto" takes that of the family which the model's family head names. Default "auto".

    Raises:
        UserError: If a setting is out of range.
    """

    timed = True

    def __init__(
        self,
        seconds: float = 60.0,
        misfit: float = 1e-6,
        bounds: tuple[float, float] = (1500.0, 4500.0),
        prior: str = AUTO,
    ) -> None:
        self.prior = check_prior(prior)
        if seconds <= 0:
            raise UserError(f"inference.refine.seconds must be above 0, got {seconds}.")
        if misfit < 0:
            raise UserError(f"inference.refine.misfit must be at least 0, got {misfit}.")
        self.seconds = seconds
        self.settings: dict[str, Any] = {"misfit": misfit, "bounds": check_bounds("refine", bounds)}

    def run(self, state: State, part: int) -> None:
        """Refine the samples one after the other."""
        if "refined" not in state.extras:
            state.extras["refined"] = state.misfit().clone()
            state.extras[HISTORY] = torch.zeros(len(state), POINTS, 2)
        misfits = state.extras["refined"]
        seconds = self.seconds if state.seconds is None else min(self.seconds, state.seconds)

        priors = self._priors(state)

        def tell(spent: float, misfit: float) -> None:
            state.note(f"refining, {spent:.0f} of {seconds:.0f} s: {100 * misfit:.2g} % of the record left")

        def work(row: int) -> None:
            found = refine(
                state.gathers[row],
                state.velocity[row],
                state.survey,
                seconds=seconds,
                prior=priors[row],
                on_step=tell,
                **self.settings,
            )
            # It begins by writing in the velocity at the shots, after which a short budget may leave it worse off.
            if found.misfit < misfits[row]:
                velocity = state.velocity.clone()
                velocity[row], misfits[row] = found.velocity, found.misfit
                state.improve(velocity, misfits)
            state.extras[HISTORY][row] = _resampled(found.history)
            state.note(f"refined to {100 * found.misfit:.2g} % of the record")

        state.by_sample(work)
        del state.extras["refined"]

    def _priors(self, state: State) -> list[str]:
        """The prior of each sample: the one that was set, or that of the family which the model names."""
        if self.prior != AUTO or state.answer is None or state.answer.family is None or not state.families:
            return [self.prior] * len(state)
        names = [state.families[number] for number in state.answer.family.argmax(dim=1).tolist()]
        return [prior_of(name) for name in names]


def _resampled(history: Sequence[tuple[float, float]]) -> Tensor:
    """`POINTS` of a history, evenly spread over its steps, (POINTS, 2)."""
    if not history:
        return torch.zeros(POINTS, 2)
    steps = torch.linspace(0, len(history) - 1, POINTS).round().long()
    return torch.tensor(history)[steps]


class Check(Step):
    """The last step: the maps are simulated for the misfit of quality.csv, of each shot too, and their illumination."""

    def run(self, state: State, part: int) -> None:
        """Simulate."""
        look(state)


def check_bounds(step: str, bounds: Sequence[float]) -> tuple[float, float]:
    """The bounds as a pair.

    Raises:
        UserError: If they are not a lowest and a highest velocity.
    """
    if len(bounds) != 2 or not 0 < bounds[0] < bounds[1]:
        raise UserError(
            f"inference.{step}.bounds must be the lowest and the highest velocity in m/s, got {list(bounds)}."
        )
    return float(bounds[0]), float(bounds[1])
