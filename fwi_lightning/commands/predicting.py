"""How predict.py goes through its samples: file after file, or round after round within a time budget."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.commands.rules import whole
from fwi_lightning.data import GathersDataset, Part
from fwi_lightning.data.dataset import raw_gathers, read_gathers, read_velocity
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.inversion import Chain, State
from fwi_lightning.inversion.calibration import Calibration
from fwi_lightning.inversion.start import gradient_start
from fwi_lightning.inversion.state import Network
from fwi_lightning.inversion.store import Store
from fwi_lightning.inversion.windows import ENVELOPES, LineNetwork, Windows, find_windows, line_survey
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import Survey

GRADIENT = "gradient"
"""The start that is derived from the record."""

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

RESERVE = 1.2
"""Of the time that writing the answers took, kept for writing them again."""


@dataclass(frozen=True)
class Geometry:
    """How the samples of a file are asked about.

    Attributes:
        survey: Of its gathers.
        network: What answers them, or None without a network.
        windows: The windows of a line, None for gathers of the network's own survey.
    """

    survey: Survey
    network: Network | None
    windows: Windows | None = None


class Source:
    """The samples, batch by batch.

    Args:
        parts: Their files.
        survey: The network's survey, or without one that of the configuration.
        model: The network, or None.
        batch_size: Samples at a time.
        windows: Settings of conf/inference for lines.
        line_shots: Columns of the shots of lines. Default: read off the record.
        start: "gradient", or parts whose velocity is the start, or None with a network.
        calibration: What the checkpoint knows of its errors. Default: nothing.

    Raises:
        UserError: If a file's gathers cannot be asked about: narrower than a window, or with shots elsewhere.
    """

    def __init__(
        self,
        parts: list[Part],
        survey: Survey,
        model: VelocityModel | None,
        batch_size: int,
        windows: Mapping[str, Any],
        line_shots: tuple[int, ...] | None = None,
        start: str | list[Part] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.calibration = calibration
        self.dataset, self.survey, self.model = GathersDataset(parts), survey, model
        self.batch_size, self.windows, self.line_shots, self.start = batch_size, windows, line_shots, start
        self.not_finite: set[int] = set()
        self._maps = Maps()
        self._geometry = {part: self._find_geometry(part) for part in parts if part.shape != survey.gathers_shape}

    @cached_property
    def batches(self) -> list[range]:
        """Numbers of the samples of each batch; those of a line come from one file."""
        found: list[range] = []
        begin = 0
        for size in self._runs():
            end = begin + size
            found += [range(at, min(at + self.batch_size, end)) for at in range(begin, end, self.batch_size)]
            begin = end
        return found

    @property
    def named(self) -> list[str]:
        """The family of each sample as its folder names it, "" where it does not."""
        return [family_of(part) for part in self.dataset.parts for _ in range(part.samples)]

    def _runs(self) -> Iterator[int]:
        """Samples of neighbouring files that may share a batch: those of a line stay among themselves."""
        size = 0
        for part in self.dataset.parts:
            if part in self._geometry:
                if size:
                    yield size
                    size = 0
                yield part.samples
            else:
                size += part.samples
        if size:
            yield size

    def geometry(self, number: int) -> Geometry:
        """The geometry of a batch."""
        part, _ = self.dataset.locate(self.batches[number].start)
        return self._geometry.get(part) or Geometry(self.survey, self._network)

    def state(self, number: int) -> State:
        """A batch with its gathers, nothing else known."""
        geometry, places = self.geometry(number), self.batches[number]
        gathers = torch.stack([self._read(place) for place in places])
        families = self.model.families if self.model else ()
        empty = torch.empty(len(places), 1, *geometry.survey.grid)
        state = State(gathers, empty, geometry.survey, geometry.network, families=families)
        state.named = tuple(family_of(self.dataset.locate(place)[0]) for place in places)
        # What holds of one window need not hold of a line.
        state.calibration = self.calibration if geometry.windows is None else None
        return state

    def begin(self, number: int) -> State:
        """A batch with the network's answer, or with the map to start from."""
        state = self.state(number)
        if state.network:
            state.answer = state.network(state.gathers)
            state.improve(state.answer.velocity)
        elif isinstance(self.start, str):
            state.improve(torch.stack([gradient_start(gathers, state.survey) for gathers in state.gathers]))
        else:
            assert self.start is not None
            starts = {part.gathers: part for part in self.start}
            located = [self.dataset.locate(place) for place in self.batches[number]]
            maps = [read_velocity(starts[part.gathers], line, self._maps) for part, line in located]
            state.improve(torch.stack([torch.from_numpy(velocity) for velocity in maps]))
        return state

    @cached_property
    def _network(self) -> Network | None:
        model = self.model
        return None if model is None else lambda gathers: model.predict_answer(gathers, self.batch_size)

    def _read(self, place: int) -> Tensor:
        """The gathers of a sample; values that are not finite become zeros, and are noted."""
        part, line = self.dataset.locate(place)
        if len(self.dataset) == 1:
            return torch.from_numpy(read_gathers(part, line, self._maps))  # which refuses what is not finite
        gathers = torch.from_numpy(raw_gathers(part, line, self._maps))
        if not gathers.isfinite().all():
            self.not_finite.add(place)
            gathers = gathers.nan_to_num(0.0, 0.0, 0.0)
        return gathers

    def _find_geometry(self, part: Part) -> Geometry:
        if part.shape[2] < self.survey.receivers:
            words = "a window of the network" if self.model else "the survey of the settings"
            raise UserError(
                f"{part.gathers} has gathers of shape {part.shape}: {part.shape[2]} receivers are fewer than the "
                f"{self.survey.receivers} of {words}."
            )
        first = torch.from_numpy(raw_gathers(part, 0, self._maps)).nan_to_num(0.0, 0.0, 0.0)
        line = line_survey(first, self.survey, self.line_shots)
        if self.model is None:
            return Geometry(line, None)
        try:
            windows = find_windows(line, self.survey, self.windows["step"], self.windows["tolerance"])
        except UserError as error:
            raise UserError(f"{part.gathers}: {error}") from error
        assert self._network is not None
        weights = {name: self.windows[name] for name in ("illumination", "agreement")}
        network = LineNetwork(self._network, windows, self.windows["weights"], **weights)
        return Geometry(line, network, windows)


def family_of(part: Part) -> str:
    """The family that the data's folders name, "" where they do not."""
    return "" if part.family == "unknown" else part.family


def check_windows(settings: Mapping[str, Any]) -> None:
    """Look at conf/inference's windows before any work.

    Raises:
        UserError: If a setting is out of range.
    """
    for name, least in (("step", 1), ("tolerance", 0)):
        if not whole(least).allows(settings[name]):
            raise UserError(f"inference.windows.{name} must be {whole(least).words}, got {settings[name]!r}.")
    if settings["weights"] not in ENVELOPES:
        raise UserError(f"inference.windows.weights must be {', '.join(ENVELOPES)}, got {settings['weights']!r}.")
    for name in ("illumination", "agreement"):
        if not isinstance(settings[name], bool):
            raise UserError(f"inference.windows.{name} must be true or false, got {settings[name]!r}.")


def seconds_of(value: Any) -> float | None:
    """A time as people write it, in seconds: 60, "60s", "90m", "8h", "1.5h", "2d"; None for None.

    Raises:
        UserError: If it is none, or not above 0.
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([smhd]?)\s*", str(value))
    if isinstance(value, bool) or not match or float(match[1]) <= 0:
        raise UserError(f"inference.time_budget must be a time above 0, such as 60s, 90m or 8h, got {value!r}.")
    return float(match[1]) * UNITS[match[2]]


def predict_all(source: Source, chain: Chain, store: Store, finish: Callable[[int, State], None]) -> None:
    """Take batch after batch through the whole chain; `finish` gets each when it is done."""
    with Progress("predicting", 0, len(source.dataset)) as progress:
        for number in range(len(source.batches)):
            state = _resumed(source, store, number, progress)
            if not chain.finished(state) or not store.has(number):
                chain.run(state)
                store.save(number, state)
            finish(number, state)
            progress.advance(len(state))


def _resumed(source: Source, store: Store, number: int, progress: Progress) -> State:
    state = store.load(number, source.state(number)) if store.has(number) else source.begin(number)
    return replace(state, note=progress.note, keep=lambda state: store.save(number, state))


@dataclass
class Budget:
    """Time that may be spent.

    Attributes:
        seconds: In all.
        begun: `time.monotonic()` when it began.
    """

    seconds: float
    begun: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.begun + self.seconds - time.monotonic()


def predict_within(
    budget: Budget, source: Source, chain: Chain, store: Store, write: Callable[[], None]
) -> dict[str, int]:
    """First a plain answer for every sample, then one round of the chain after the other while time remains.

    Args:
        budget: The time; a batch that has begun is finished.
        source: The samples.
        chain: The rounds.
        store: What was done is kept there, and not done again.
        write: Writes all answers as they are; called after the plain answers and at the end.

    Returns:
        How many samples each round is done for, "network" first.

    Raises:
        UserError: If there is not even time for the plain answers.
    """
    _answer_plainly(budget, source, store)
    begun = time.monotonic()
    write()
    reserve = RESERVE * (time.monotonic() - begun)
    done = [store.load(number, _bare(source, number)).done for number in range(len(source.batches))]
    changed = False
    for number_of_round in range(len(chain.rounds)):
        changed |= _do_round(number_of_round, budget, reserve, source, chain, store, done)
    if changed:
        write()
    counts = {"network": len(source.dataset)}
    for number_of_round, (name, step, part) in enumerate(chain.rounds):
        label = f"{name} {part + 1}/{step.parts}" if step.parts > 1 else name
        counts[label] = sum(
            len(places) for places, at in zip(source.batches, done, strict=True) if at > number_of_round
        )
    return counts


def _bare(source: Source, number: int) -> State:
    """A batch without its gathers, to see how far it is."""
    empty = torch.empty(len(source.batches[number]), 0)
    return State(empty, empty, source.survey)


def _answer_plainly(budget: Budget, source: Source, store: Store) -> None:
    left = [number for number in range(len(source.batches)) if not store.has(number)]
    samples = sum(len(source.batches[number]) for number in left)
    with Progress("predicting", len(source.dataset) - samples, len(source.dataset)) as progress:
        for number in left:
            begun = time.monotonic()
            state = source.begin(number)
            seconds = (time.monotonic() - begun) / len(state) * (len(source.dataset) - progress.done)
            # The first batch is slow; a long pass is judged by its second.
            if seconds > budget.left and number in left[1 if len(left) > 1 else 0 :]:
                raise UserError(
                    f"inference.time_budget of {budget.seconds:g} s is too short: the network's answers alone would "
                    f"take {seconds:.1f} s more here; give more time, fewer samples or a smaller model."
                )
            store.save(number, state)
            progress.advance(len(state))


def _do_round(
    number_of_round: int, budget: Budget, reserve: float, source: Source, chain: Chain, store: Store, done: list[int]
) -> bool:
    """Do one round for every batch that has it before it, while there is time; whether anything was done."""
    this = chain.rounds[number_of_round]
    todo = [number for number, at in enumerate(done) if at == number_of_round]
    left = sum(len(source.batches[number]) for number in todo)
    if not todo or budget.left < reserve:
        return False
    with Progress(this.title, len(source.dataset) - left, len(source.dataset)) as progress:
        for number in todo:
            if budget.left < reserve:
                break
            state = _resumed(source, store, number, progress)
            if this.step.timed:
                state.seconds = (budget.left - reserve) / left
            chain.advance(state)
            store.save(number, state)
            done[number] = state.done
            left -= len(state)
            progress.advance(len(state))
    return True
