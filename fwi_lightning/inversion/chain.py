"""What comes after the network: named steps in a fixed order, each on or off in conf/inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fwi_lightning.config import check_arguments
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.augmentation import Augmentation
from fwi_lightning.inversion.calibration import NETWORK
from fwi_lightning.inversion.crf import RandomField
from fwi_lightning.inversion.judging import remember
from fwi_lightning.inversion.refiner import LearnedRefiner
from fwi_lightning.inversion.state import State
from fwi_lightning.inversion.steps import Check, FixedPoint, Refine, Step

STEPS: dict[str, type[Step]] = {
    "tta": Augmentation,
    "crf": RandomField,
    "fixed_point": FixedPoint,
    "refiner": LearnedRefiner,
    "refine": Refine,
}
"""Key of conf/inference to the class that takes its settings, in the order in which they are done."""


class Round(NamedTuple):
    """One part of one step."""

    name: str
    step: Step
    part: int

    @property
    def title(self) -> str:
        """For the user: "tta 2/5"."""
        return f"{self.name} {self.part + 1}/{self.step.parts}" if self.step.parts > 1 else self.name


class Chain:
    """Does the steps in order; each adds to quality.csv what it has changed.

    After a step, `seconds_STEP` holds how long a sample took, and `misfit_STEP` what was not explained then;
    `misfit_network`, or `misfit_start` without a network, is that of the map that the chain began with.

    Args:
        steps: Name -> step, in the order of `STEPS`.
        simulated: Whether the maps are simulated for their misfit at the end.
        measured: Whether they are also simulated after each step, where the step has not. Default: as `simulated`.
        after: Called with the state and the name of each step that is done, `calibration.NETWORK` before the first.
            Default: `remember`.
    """

    def __init__(
        self,
        steps: Mapping[str, Step],
        simulated: bool,
        measured: bool | None = None,
        after: Callable[[State, str], None] = remember,
    ) -> None:
        self.steps, self.after = dict(steps), after
        self.measured = simulated if measured is None else measured
        self.rounds = [Round(name, step, part) for name, step in steps.items() for part in range(step.parts)]
        if simulated:
            self.rounds.append(Round("check", Check(), 0))

    def finished(self, state: State) -> bool:
        """Whether all rounds are behind a batch."""
        return state.done >= len(self.rounds)

    def advance(self, state: State) -> None:
        """Do the next round."""
        name, step, part = self.rounds[state.done]
        if state.done == 0 and self.steps:
            if self.measured:
                state.columns["misfit_network" if state.network else "misfit_start"] = state.misfit().tolist()
            self.after(state, NETWORK)
        begun = time.monotonic()
        step.run(state, part)
        seconds = (time.monotonic() - begun) / len(state)
        if name in self.steps:
            spent = state.columns.get(f"seconds_{name}", [0.0] * len(state))
            state.columns[f"seconds_{name}"] = [round(before + seconds, 3) for before in spent]
            if part == step.parts - 1:
                if self.measured or state.known_misfit is not None:
                    state.columns[f"misfit_{name}"] = state.misfit().tolist()
                self.after(state, name)
        state.done, state.rows = state.done + 1, 0

    def run(self, state: State) -> State:
        """Do all rounds that are left."""
        while not self.finished(state):
            self.advance(state)
        return state


def build_steps(settings: Mapping[str, Any], network: bool = True) -> dict[str, Step]:
    """The steps that are on, their settings checked.

    Args:
        settings: conf/inference as plain values: a key of `STEPS` with its settings, or null.
        network: Whether there is a network to ask. Default True.

    Returns:
        Name -> step, in the order of `STEPS`.

    Raises:
        UserError: If a setting is unknown, of another type or out of range, or a step needs a network and there is
            none.
    """
    steps = {}
    for name, kind in STEPS.items():
        given = settings.get(name)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise UserError(f"inference.{name} must be null (off) or its settings, got {given!r}.")
        check_arguments(kind, given)
        if kind.asks_network and not network:
            raise UserError(f"inference.{name} asks the network, and there is none without ckpt=: set it to null.")
        steps[name] = kind(**given)
    return steps
