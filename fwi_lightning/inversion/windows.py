"""Lines wider than the survey of a network: windows of its own geometry, blended where they overlap.

Each window reads five (or as many as the network knows) of the line's shots, those at its own places, so that its
channels change with its place: sliding-window inferers, which cut one tensor, do not serve here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.models import Answer
from fwi_lightning.physics import illuminate
from fwi_lightning.physics.fingerprint import fingerprint
from fwi_lightning.survey import Survey

ENVELOPES = ("gaussian", "hann", "uniform")

LEAST = 1e-3
"""Weight at a window's edge, so that cells that only one window reaches have one."""

SIGMA = 0.25
"""Of a Gaussian envelope, in widths of a window."""


@dataclass(frozen=True)
class Windows:
    """Where windows stand in a line.

    Attributes:
        line: The survey of the line.
        window: The network's survey.
        places: Left column of each window.
        shots: For each window the numbers of its shots in the line.
    """

    line: Survey
    window: Survey
    places: tuple[int, ...]
    shots: tuple[tuple[int, ...], ...]

    def cut(self, gathers: Tensor) -> Tensor:
        """Gathers of lines, (batch, shots, time, receivers), to those of windows, (batch * windows, ...)."""
        width = self.window.receivers
        parts = [
            gathers[:, list(shots), :, place : place + width]
            for place, shots in zip(self.places, self.shots, strict=True)
        ]
        return torch.stack(parts, dim=1).flatten(0, 1)

    def borders(self) -> list[int]:
        """Columns where a window begins or has ended, inside the line."""
        width = self.window.grid[1]
        edges = {edge for place in self.places for edge in (place, place + width)}
        return sorted(edges - {0, self.line.grid[1]})


def line_survey(gathers: Tensor, window: Survey, shot_columns: tuple[int, ...] | None = None) -> Survey:
    """The survey of a line with the grid, times and wavelet of another: a receiver in every column.

    Args:
        gathers: (shots, time, receivers) of one sample.
        window: The survey whose depth, spacing, times and wavelet it has.
        shot_columns: Columns of the shots. Default: where each shot is first recorded.

    Raises:
        UserError: If the columns given are not as many as the shots, or lie outside the line.
    """
    shots, _, width = gathers.shape
    if shot_columns is not None and len(shot_columns) != shots:
        raise UserError(f"line_shots names {len(shot_columns)} columns, the gathers have {shots} shots: name each.")
    columns = shot_columns or tuple(np.round(np.linspace(0, width - 1, shots)).astype(int).tolist())
    line = replace(window, grid=(window.grid[0], width), shot_columns=columns, receiver_columns=tuple(range(width)))
    if shot_columns is None:
        line = replace(line, shot_columns=tuple(fingerprint(gathers[None], line).shot_columns[0].tolist()))
    return line


def find_windows(line: Survey, window: Survey, step: int = 1, tolerance: int = 0) -> Windows:
    """The windows of a network's survey in a line: every place where the line has the shots that it needs.

    Args:
        line: The survey of the line.
        window: The network's.
        step: Least distance of two windows, cells; the outermost are always taken. Default 1.
        tolerance: Cells by which a shot may stand off its place. Default 0.

    Returns:
        The windows.

    Raises:
        UserError: If the line is narrower than a window, or some column of it lies in no window.
    """
    width, have = window.grid[1], line.grid[1]
    if have < width:
        raise UserError(f"the line is {have} columns wide, narrower than the network's window of {width}.")
    columns = np.array(line.shot_columns)
    places, shots = [], []
    for place in range(have - width + 1):
        distances = np.abs(columns[None, :] - (place + np.array(window.shot_columns))[:, None])
        if distances.min(axis=1).max() <= tolerance:
            places.append(place)
            shots.append(tuple(distances.argmin(axis=1).tolist()))
    chosen = _thinned(places, step)
    covered = np.zeros(have, dtype=bool)
    for number in chosen:
        covered[places[number] : places[number] + width] = True
    if not covered.all():
        raise UserError(
            f"the network reads {have if not places else int((~covered).sum())} of the line's {have} columns nowhere: "
            f"it needs shots at {_listed(window.shot_columns)} of each window of {width} columns, and the line has "
            f"{len(columns)} at {_listed(line.shot_columns)}; give start=gradient or start=FILE with inference=refine "
            "instead of ckpt=, or allow shots off their place by inference.windows.tolerance=CELLS."
        )
    return Windows(line, window, tuple(places[k] for k in chosen), tuple(shots[k] for k in chosen))


def _thinned(places: list[int], step: int) -> list[int]:
    """Numbers of places at least a step apart, with the last one whatever its distance."""
    chosen: list[int] = []
    for number, place in enumerate(places):
        if not chosen or place - places[chosen[-1]] >= step:
            chosen.append(number)
    return chosen if not places or chosen[-1] == len(places) - 1 else [*chosen, len(places) - 1]


class LineNetwork:
    """A network that answers lines: the blend of its answers to the windows.

    Args:
        network: The network of the windows.
        windows: Where they stand.
        envelope: Weight across a window: "gaussian" (of `SIGMA` widths), "hann" or "uniform". Default "gaussian".
        illumination: Whether a window weighs less where its shots light the ground less than elsewhere at that depth.
            Default True.
        agreement: Whether it weighs less where it is off the median of the windows, and where the model expects a
            larger error. Default False: the mean of windows that err each in its own way errs less than their median.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Answer],
        windows: Windows,
        envelope: str = "gaussian",
        illumination: bool = True,
        agreement: bool = False,
    ) -> None:
        self.network, self.windows, self.agreement = network, windows, agreement
        self.weight = across(windows.window.grid[1], envelope).expand(windows.window.grid).clone()
        if illumination:
            self.weight *= lit(windows.window)

    def __call__(self, gathers: Tensor) -> Answer:
        """Gathers of lines, (batch, shots, time, receivers), to the blended answer."""
        answer = self.network(self.windows.cut(gathers))
        count = len(self.windows.places)
        maps = answer.velocity.unflatten(0, (-1, count))
        scale = None if answer.scale is None else answer.scale.unflatten(0, (-1, count))
        weight = self.weight.expand_as(maps).clone()
        if scale is not None and self.agreement:
            weight /= scale.square()
        if self.agreement:
            middle = self._median(maps)
            away = torch.stack([maps[:, k] - self._at(middle, k) for k in range(count)], dim=1)
            # As far off as windows are on the average halves a weight.
            usual = away.abs().mean().clamp_min(1.0)
            weight /= 1 + (away / usual).square()
        velocity = self._blend(maps, weight)
        blended = None if scale is None else self._blend(scale, weight)
        family = None if answer.family is None else answer.family.unflatten(0, (-1, count)).mean(dim=1)
        inconsistency = answer.inconsistency
        if inconsistency is not None:
            inconsistency = inconsistency.unflatten(0, (-1, count)).mean(dim=1)
        return Answer(velocity, blended, family, inconsistency)

    def _at(self, line: Tensor, number: int) -> Tensor:
        place = self.windows.places[number]
        return line[..., place : place + self.windows.window.grid[1]]

    def _blend(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean of maps (batch, windows, 1, depth, width) over the line."""
        total = maps.new_zeros(len(maps), 1, *self.windows.line.grid)
        weights = torch.zeros_like(total)
        for number in range(maps.shape[1]):
            self._at(total, number).add_(weight[:, number] * maps[:, number])
            self._at(weights, number).add_(weight[:, number])
        return total / weights

    def _median(self, maps: Tensor) -> Tensor:
        """Median over the windows of each cell of the line."""
        lines = maps.new_full((len(maps), maps.shape[1], 1, *self.windows.line.grid), torch.nan)
        for number in range(maps.shape[1]):
            self._at(lines[:, number], number).copy_(maps[:, number])
        return lines.nanmedian(dim=1).values


def across(width: int, envelope: str) -> Tensor:
    """Weight of each column of a window, (width,)."""
    place = (torch.arange(width) + 0.5) / width - 0.5
    if envelope == "gaussian":
        return torch.exp(-0.5 * (place / SIGMA).square()).clamp_min(LEAST)
    if envelope == "hann":
        return torch.cos(torch.pi * place).square().clamp_min(LEAST)
    return torch.ones(width)


def lit(survey: Survey) -> Tensor:
    """How much a survey lights each cell, over the most at that depth: square root of illumination, (depth, width).

    Over ground whose velocity grows from 1500 to 4500 m/s with depth.
    """
    depth, width = survey.grid
    velocity = torch.linspace(1500, 4500, depth)[:, None].expand(depth, width).contiguous()
    _, illumination = illuminate(velocity, survey)
    share = (illumination / illumination.amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)).sqrt()
    return share.clamp_min(LEAST)


def seam(velocity: Tensor, windows: Windows) -> list[float]:
    """How much the map jumps where windows begin and end, over how much it jumps from column to column elsewhere.

    Args:
        velocity: (batch, 1, depth, width) in m/s.
        windows: Where they stand.

    Returns:
        For each line: 1 if the seams are like any other column, more if they show. NaN without a seam.
    """
    jumps = velocity[:, 0].diff(dim=2).abs().mean(dim=1)  # (batch, width - 1): between columns k and k + 1
    borders = torch.zeros(jumps.shape[1], dtype=torch.bool)
    borders[[edge - 1 for edge in windows.borders()]] = True
    elsewhere = jumps[:, ~borders].mean(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return [float(value) for value in jumps[:, borders].mean(dim=1) / elsewhere]


def _listed(columns: tuple[int, ...]) -> str:
    text = [str(column) for column in columns]
    return ", ".join(text if len(text) <= 12 else [*text[:10], "...", text[-1]])
