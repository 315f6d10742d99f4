"""A batch on its way through what comes after the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fwi_lightning.inversion.calibration import Calibration
from fwi_lightning.inversion.quality import USUAL, misfit
from fwi_lightning.models import Answer
from fwi_lightning.survey import Survey

Network = Callable[[Tensor], Answer]
"""Gathers (batch, shots, time, receivers) as recorded to an answer, float32 on the CPU."""


def _nothing(_: str) -> None:
    pass


@dataclass
class State:
    """What is known of a batch; each step of the chain reads it and changes it.

    Attributes:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width) in m/s, the best so far. A step sets it by `improve`.
        survey: The survey that recorded the gathers.
        network: The network, or None where a map was given instead of it.
        answer: What the network said of the gathers: its own velocity, the expected error of each cell, the logits of
            the families. None without a network.
        families: Names of the families, in the order of the logits.
        calibration: What the checkpoint knows of its own errors. None if it holds nothing.
        named: Family of each sample as the data's folders have it, "" where they do not say. Default: () for none.
        columns: What the steps add to quality.csv: name of a column to one value for each sample.
        maps: Further maps of each sample by name, (batch, 1, depth, width): "spread" is the standard deviation of the
            members of test-time augmentation, m/s.
        extras: Tensors by name, a row for each sample, that a step keeps for itself between its parts.
        done: Rounds of the chain that are behind it; see `Chain.rounds`.
        rows: Samples of the batch that the round at hand is done with, for steps that work sample by sample.
        seconds: What a sample may take in a step that spends time as it is given. Default: as the step's settings say.
        note: Called with a sentence on what has just been done. Default: nothing.
        keep: Called when the state is worth keeping for a later start. Default: nothing.
        known_misfit: (batch,) of `velocity`, None until something has simulated it.
    """

    gathers: Tensor
    velocity: Tensor
    survey: Survey
    network: Network | None = None
    answer: Answer | None = None
    families: tuple[str, ...] = ()
    calibration: Calibration | None = None
    named: tuple[str, ...] = ()
    columns: dict[str, list[Any]] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    done: int = 0
    rows: int = 0
    seconds: float | None = None
    note: Callable[[str], None] = _nothing
    keep: Callable[[State], None] = lambda _: None
    known_misfit: Tensor | None = None

    def __len__(self) -> int:
        return len(self.gathers)

    def improve(self, velocity: Tensor, misfit: Tensor | None = None) -> None:
        """Set other maps.

        Args:
            velocity: (batch, 1, depth, width) in m/s.
            misfit: (batch,) their misfit, if the step has simulated them anyway. Default: unknown.
        """
        self.velocity, self.known_misfit = velocity, misfit

    def misfit(self) -> Tensor:
        """The misfit of the maps, (batch,); they are simulated unless they were already."""
        if self.known_misfit is None:
            # A network may overshoot; the simulator takes only what its time step can carry.
            self.known_misfit = misfit(self.gathers, self.velocity.clamp(*USUAL), self.survey)
        return self.known_misfit

    def family_names(self) -> list[str]:
        """The family of each sample: as its folder says, else as the network does, else ""."""
        said = [""] * len(self)
        if self.answer is not None and self.answer.family is not None:
            said = [self.families[number] for number in self.answer.family.argmax(dim=1).tolist()]
        return [name or guess for name, guess in zip(self.named or said, said, strict=True)]

    def by_sample(self, work: Callable[[int], None]) -> None:
        """Do the samples one after the other, and keep the state after each: what was done is not done again."""
        while self.rows < len(self):
            work(self.rows)
            self.rows += 1
            self.keep(self)
