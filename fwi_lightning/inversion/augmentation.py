"""Test-time augmentation: the network asked again about records that it ought to answer the same, or nearly so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fwi_lightning.data.augment.flip import mirrored
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.quality import USUAL
from fwi_lightning.inversion.state import State
from fwi_lightning.inversion.steps import Step
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

MISSING_SHOT = ("difference", "simulate", "recorded")
AVERAGES = ("mean", "median")

WATER_LEVEL = 1e-3
"""Of the power of a wavelet, below which its spectrum is not divided by."""

Member = Callable[[State], Tensor]
"""A member's maps, (batch, 1, depth, width) in m/s."""


class Augmentation(Step):
    """Averages the network's answer with those to changed records, each brought back; their spread is kept.

    Each member is a part of its own, so that a time budget may end between two. The order is that of the arguments.

    Args:
        flip: Whether to mirror the record; see `flipped`. Default True.
        missing_shot: What stands in for a shot whose mirror image was not recorded; see `mirror`. Default "difference".
        gains: Factors on the record. Default none.
        shifts: Time shifts in samples, positive for later. Default none.
        scalings: Factors on the velocity; see `scaled`. Default none.
        rotations: Angles in degrees by which the predicted map is turned, see `rotated`; 0 is the first step of the
            fixed point. Default none.
        both_ways: Whether gains, shifts and scalings are also asked of the mirrored record, each a member of its own.
            Default False.
        average: "mean" or "median", of the network's answer and all members. Default "mean".

    Raises:
        UserError: If a setting is out of range, or there is no member.
    """

    asks_network = True

    def __init__(
        self,
        flip: bool = True,
        missing_shot: str = "difference",
        gains: Sequence[float] = (),
        shifts: Sequence[int] = (),
        scalings: Sequence[float] = (),
        rotations: Sequence[float] = (),
        both_ways: bool = False,
        average: str = "mean",
    ) -> None:
        for name, value, known in (("missing_shot", missing_shot, MISSING_SHOT), ("average", average, AVERAGES)):
            if value not in known:
                raise UserError(f"inference.tta.{name} must be {' or '.join(known)}, got {value!r}.")
        limits: tuple[tuple[str, Sequence[float], float, float], ...] = (
            ("gains", gains, 0.1, 10),
            ("shifts", shifts, -100, 100),
            ("scalings", scalings, 0.8, 1.25),
            ("rotations", rotations, -45, 45),
        )
        for setting, factors, low, high in limits:
            for factor in factors:
                if not low <= factor <= high:
                    raise UserError(f"inference.tta.{setting} must be from {low:g} to {high:g}, got {factor:g}.")
        self.average = average
        changes: list[Member] = [partial(amplified, gain=gain) for gain in gains]
        changes += [partial(shifted, samples=samples) for samples in shifts]
        changes += [partial(scaled, factor=factor) for factor in scalings]
        self.members: list[Member] = [partial(flipped, missing_shot=missing_shot)] if flip else []
        for change in changes:
            self.members.append(change)
            if both_ways:
                self.members.append(partial(flipped, missing_shot=missing_shot, change=change))
        self.members += [partial(rotated, degrees=degrees) for degrees in rotations]
        if not self.members:
            raise UserError("inference.tta has no member: set flip, gains, shifts, scalings or rotations, or tta=null.")
        self.parts = len(self.members)

    def run(self, state: State, part: int) -> None:
        """Add a member to the average."""
        answer = _asked(state)
        members = torch.cat([state.extras.get("members", answer[:, None]), self.members[part](state)[:, None]], dim=1)
        state.extras["members"] = members
        state.improve(members.mean(dim=1) if self.average == "mean" else members.median(dim=1).values)
        state.maps["spread"] = members.std(dim=1, correction=0)
        state.columns["members"] = [members.shape[1]] * len(state)
        if part == self.parts - 1:
            del state.extras["members"]


def flipped(state: State, missing_shot: str = "difference", change: Member | None = None) -> Tensor:
    """The mirror image of the answer to the mirrored record, or of what a member makes of that record."""
    gathers = mirror(state.gathers, _asked(state), state.survey, missing_shot)
    return (change(replace(state, gathers=gathers)) if change else _ask(state, gathers)).flip(-1)


def amplified(state: State, gain: float) -> Tensor:
    """The answer to the record times a factor: a network may read the size of reflections as well as their times."""
    return _ask(state, gain * state.gathers)


def shifted(state: State, samples: int) -> Tensor:
    """The answer to the record some samples later, zeros before; earlier, the last sample held."""
    size = state.survey.samples
    places = torch.arange(size) - samples
    moved = state.gathers[:, :, places.clamp(0, size - 1)]
    moved[:, :, places < 0] = 0
    return _ask(state, moved)


def scaled(state: State, factor: float) -> Tensor:
    """The answer for a ground faster by a factor, divided by it.

    If p(x, t) solves p_tt = v^2 (lap p + w(t)), then p(x, c t) is the field of the velocity c v and the wavelet w(c t):
    the time axis is compressed, and the wavelet brought back to what it was by a shaping filter (Wiener, with the water
    level `WATER_LEVEL`). Beyond the end of the record its last sample is held.
    """
    return _ask(state, rescale(state.gathers, state.survey, factor)) / factor


def rotated(state: State, degrees: float) -> Tensor:
    """The answer less the error that the network makes on it when it is turned and simulated, turned back."""
    velocity = _asked(state).clamp(*USUAL)
    turned = turn(velocity, degrees, "nearest")
    error = _ask(state, simulate(turned[:, 0], state.survey)) - turned
    return velocity - turn(error, -degrees, "bilinear")


def mirror(gathers: Tensor, velocity: Tensor, survey: Survey, missing_shot: str) -> Tensor:
    """The record of the mirrored ground by the same survey.

    A shot's gather over the mirrored ground is that of the shot in the mirrored column, receivers mirrored. OpenFWI's
    third shot stands at column 34, its mirror image at 35, where none was fired. "recorded" takes the nearest shot that
    was, "simulate" the one missing over the map, "difference" the nearest plus the difference of the two over the map.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width) in m/s, the map to simulate the missing shot over.
        survey: The survey.
        missing_shot: One of `MISSING_SHOT`.

    Raises:
        UserError: If the receivers are not their own mirror image.
    """
    receivers = [place for place in mirrored(survey.receiver_columns, survey) if place is not None]
    if len(receivers) < survey.receivers:
        raise UserError("inference.tta.flip needs a receiver at the mirror image of each: set it to false.")
    images = mirrored(survey.shot_columns, survey)
    wanted = [survey.grid[1] - 1 - column for column in survey.shot_columns]
    nearest = [min(range(survey.shots), key=lambda shot: abs(survey.shot_columns[shot] - column)) for column in wanted]
    found = gathers[:, nearest]
    missing = [shot for shot, image in enumerate(images) if image is None]
    if missing and missing_shot != "recorded":
        columns = [wanted[shot] for shot in missing]
        if missing_shot == "difference":
            columns += [survey.shot_columns[nearest[shot]] for shot in missing]
        record = simulate(velocity[:, 0].clamp(*USUAL), replace(survey, shot_columns=tuple(columns)))
        if missing_shot == "difference":
            record = found[:, missing] + record[:, : len(missing)] - record[:, len(missing) :]
        found[:, missing] = record
    return found[..., receivers]


def rescale(gathers: Tensor, survey: Survey, factor: float) -> Tensor:
    """The record of a ground whose velocities are all multiplied by a factor; see `scaled`."""
    size = survey.samples
    places = (torch.arange(size, dtype=torch.float64) * factor).clamp(max=size - 1)
    before = places.floor().long()
    after = (before + 1).clamp(max=size - 1)
    share = (places - before).float()[:, None]
    moved = gathers[:, :, before] * (1 - share) + gathers[:, :, after] * share
    wanted = torch.from_numpy(survey.wavelet())
    wavelet = (wanted[before] * (1 - share[:, 0]) + wanted[after] * share[:, 0]).double()
    have, want = (torch.fft.rfft(values, 2 * size) for values in (wavelet, wanted))
    power = have.abs().square()
    # Where there is nothing to shape, as at 0 Hz, things are left as they are.
    level = WATER_LEVEL * power.max()
    shaping = (want * have.conj() + level) / (power + level)
    spectrum = torch.fft.rfft(moved, 2 * size, dim=2) * shaping.to(torch.complex64)[:, None]
    return torch.fft.irfft(spectrum, 2 * size, dim=2)[:, :, :size]


def turn(maps: Tensor, degrees: float, mode: str) -> Tensor:
    """Maps (batch, 1, depth, width) turned about their middle; beyond the edges their edge values go on."""
    depth, width = maps.shape[-2:]
    angle = math.radians(degrees)
    # In grid_sample's units each axis is 2 long, whatever its cells.
    matrix = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle) * depth / width, 0.0],
            [math.sin(angle) * width / depth, math.cos(angle), 0.0],
        ]
    )
    grid = functional.affine_grid(matrix.expand(len(maps), 2, 3), list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode, padding_mode="border", align_corners=False)


def _asked(state: State) -> Tensor:
    assert state.answer is not None
    return state.answer.velocity


def _ask(state: State, gathers: Tensor) -> Tensor:
    assert state.network is not None
    return state.network(gathers).velocity
