"""The Gauss-Newton matrix of the waveform misfit, written out: how much the record feels each pair of cells.

By reciprocity one simulation from each shot and one from each receiver make every derivative of the record. A change dv
of the velocity in cell x radiates 2 dv / v (p_next - (2 - kappa) p + (1 - kappa) p_previous), kappa the damping of the
sponge, and what the receiver hears of that is what x would hear of a shot at the receiver. With P_s and P_r for the
fields of shots there, in the frequency domain and with e = exp(-i omega dt),

    d record(s, r) / dv(x) = 2 / v^3 (2 cos(omega dt) - 2 + kappa (1 - e)) / dt^2  P_s(x) P_r(x) / W  e,

W the wavelet. An edge cell's is the sum over all cells of the padding that repeat it. The derivation for the continuous
equation is that of Pratt, Shin and Hicks (1998, Geophysical Journal International 133). In time it is cut to the
record, weighted, and multiplied with itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from fwi_lightning.physics import simulate
from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.physics.wavefields import wavefields
from fwi_lightning.survey import Survey

HIGHEST = 10 / 3
"""Peak frequencies of a Ricker wavelet above which it has less than a thousandth of its peak."""

CLOSE = 8
"""Cells of the padding at either end that are each looked at; between them every second one stands for two. All of it
counts for the edge cells that it repeats: where less did there would be an echo, and fast waves cross it and come in
again on the other side (the outer edge is periodic)."""

FAINT = 0.01
"""Share of the wavelet's spectrum at its peak below which a frequency counts less and less: what a field still has to
say after the record's end is missing from its spectrum, and the division by the wavelet's makes that large."""

FEW = 100
"""Areas up to which one simulation for each is cheaper. They reach to the end of the padding, too."""

STEP = 5.0
"""m/s, of the differences: small beside what bends the record, large beside rounding."""

SLOWEST = 1500.0
"""m/s: receivers may be left out as far as two of those used stand no further apart than its shortest wave is long."""


BATCH = 16
"""Maps simulated at a time."""

TOGETHER = 8
"""Shots whose fields are in memory at once."""

PART = 1024
"""Columns of the matrix that are computed at a time."""


class _Sampling(NamedTuple):
    """What part of the record the matrix is made of; a matrix that is a percent off converges as well.

    Attributes:
        every: Time samples from one that is used to the next.
        receivers: Columns of the receivers that are used.
    """

    every: int
    receivers: tuple[int, ...]


def _sampling(survey: Survey) -> _Sampling:
    highest = HIGHEST * survey.frequency
    every = max(1, math.floor(1 / (2.5 * highest * survey.time_step)))
    apart = max(1, math.floor(SLOWEST / highest / survey.spacing))
    return _Sampling(every, survey.receiver_columns[::apart])


class Derivative:
    """The derivative of a survey's record with respect to each cell of a map.

    Args:
        velocity: (depth, width) in m/s, on the CPU.
        survey: The survey.
    """

    def __init__(self, velocity: Tensor, survey: Survey) -> None:
        self.survey = survey
        self.every, self.receivers = _sampling(survey)
        self._padding, count = _thinned(survey.sponge)
        self.times = -(-survey.samples // self.every)
        step = survey.time_step
        # Products of two fields last twice as long; the wavelet's inverse reaches a period or two back.
        periods = round(2 / survey.frequency / (step * self.every))
        self.length = next_fast_len(2 * self.times + periods, real=True)
        frequencies = np.fft.rfftfreq(self.length, step * self.every)
        self.bins = np.flatnonzero((frequencies > 0) & (frequencies <= HIGHEST * survey.frequency))
        omega = torch.from_numpy(2 * math.pi * frequencies[self.bins])
        self._shots = self._fields(velocity, survey.shot_columns, survey.shot_row)
        self._echoes = self._fields(velocity, self.receivers, survey.receiver_row)
        self._factor = self._radiated(velocity, omega, count)

    def _radiated(self, velocity: Tensor, omega: Tensor, count: NDArray[np.float64]) -> Tensor:
        """What the product of both fields is multiplied by, (rows, columns, bins) complex."""
        step = self.survey.time_step
        wavelet = torch.from_numpy(self.survey.wavelet())
        spectrum = (wavelet * torch.exp(-1j * omega[:, None] * step * torch.arange(self.survey.samples))).sum(dim=1)
        divided = spectrum.conj() / (spectrum.abs().square() + (FAINT * spectrum.abs().max()).square())
        delay = torch.exp(-1j * omega * step)
        difference = 2 * torch.cos(omega * step) - 2 + self._damping(float(velocity.min()))[..., None] * (1 - delay)
        padded = torch.nn.functional.pad(velocity[None, None], (len(count),) * 4, mode="replicate")[0, 0]
        rows, columns = self._outwards(count, 1.0)
        factor = (2 * rows[:, None] * columns / padded.double() ** 3)[..., None] * difference
        return (factor * (divided * delay * self.every / step**2)).to(torch.complex64)

    def _outwards(self, values: NDArray[np.float64], inside: float) -> list[Tensor]:
        """Of each row and of each column: one value in the map, others from its edges outwards."""
        lines = (np.concatenate([values[::-1], np.full(size, inside), values]) for size in self.survey.grid)
        return [torch.from_numpy(line) for line in lines]

    def _damping(self, slowest: float) -> Tensor:
        """The scheme's kappa, (rows, columns): beside the map it follows the distance from the sides alone."""
        rows, columns = self._outwards(slowest * sponge_profile(self.survey)[self._padding], -1.0)
        return torch.where(columns >= 0, columns, rows[:, None].clamp_min(0))

    def _fields(self, velocity: Tensor, columns: tuple[int, ...], row: int) -> Tensor:
        """Spectra of the fields of shots, (shots, rows, columns, bins) complex."""
        survey = dataclasses.replace(self.survey, shot_row=row)
        places = [[*(-1 - self._padding[::-1]), *range(size), *(size + self._padding)] for size in survey.grid]
        spectra = torch.empty(len(columns), *map(len, places), len(self.bins), dtype=torch.complex64)
        for first in range(0, len(columns), TOGETHER):
            some = dataclasses.replace(survey, shot_columns=columns[first : first + TOGETHER])
            for shot, field in enumerate(wavefields(velocity, some, self.every, *places), start=first):
                spectra[shot] = torch.fft.rfft(field, n=self.length)[..., self.bins]
        return spectra

    def of_shot(self, shot: int, weight: Tensor) -> Tensor:
        """The derivative of one gather, (cells, receivers x times) float32 per m/s.

        Args:
            shot: Number of the shot.
            weight: (times,), what each time sample is multiplied by.
        """
        source = self._shots[shot] * self._factor
        back = self._to_time(weight)
        result = torch.empty(self.survey.grid[0] * self.survey.grid[1], len(self.receivers), self.times)
        for place, echo in enumerate(self._echoes):
            inside = _fold(_fold(source * echo, len(self._padding), 0), len(self._padding), 1).flatten(0, 1)
            result[:, place] = torch.view_as_real(inside).flatten(1) @ back
        return result.flatten(1)

    def _to_time(self, weight: Tensor) -> Tensor:
        """The weighted inverse Fourier transform as a matrix, (2 bins, times)."""
        phase = 2 * math.pi / self.length * torch.from_numpy(self.bins)[:, None] * torch.arange(self.times)
        parts = torch.stack([phase.cos(), -phase.sin()], dim=1).flatten(0, 1)
        return (2 / self.length * parts * weight).float()


def _thinned(sponge: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cells of the padding, counted outwards from 0, and how many each stands for: `CLOSE` says which."""
    place = np.arange(sponge)
    end = np.minimum(place, place[::-1])
    # From each to each second one little by little: a sudden change would be an echo as well.
    share = np.sin(0.5 * np.pi * np.minimum(1, (end + 1) / (CLOSE + 1))) ** 2 * (sponge > 2 * CLOSE)
    kept = (end < CLOSE) | (place % 2 == 0)
    return place[kept], np.where(place % 2 == 0, 1 + share, 1 - share)[kept]


def gauss_newton_matrix(velocity: Tensor, survey: Survey, weight: Tensor, areas: Tensor | None = None) -> Tensor:
    """The curvature of 1/2 mean of (weight (F(v) - d))^2, its second derivative less the part with the residual in it.

    Args:
        velocity: (depth, width) in m/s, on the CPU.
        survey: The survey.
        weight: (time,), the weight of each time sample of the record.
        areas: (depth, width), number of the area of each cell; cells of an area share one velocity. Default: each cell
            is its own.

    Returns:
        (areas, areas) per (m/s)^2, symmetric; float32, or float64 of up to `FEW` areas.
    """
    velocity = velocity.detach().float()
    if areas is not None and int(areas.max()) < FEW:
        return curvature_of_areas(velocity, survey, weight, areas)
    derivative = Derivative(velocity, survey)
    of_cell = torch.arange(velocity.numel()) if areas is None else areas.flatten()
    count = int(of_cell.max()) + 1
    matrix = torch.zeros(count, count)
    with _fast_products():
        for shot in range(survey.shots):
            rows = derivative.of_shot(shot, weight[:: derivative.every])
            if count < len(rows):
                # Before the product, which takes time in proportion to the square of their number.
                rows = rows.new_zeros(count, rows.shape[1]).index_add_(0, of_cell, rows)
            for first in range(0, count, PART):
                # What lies above the diagonal follows from what lies below.
                matrix[first:, first : first + PART].addmm_(rows[first:], rows[first : first + PART].T)
    used = len(derivative.receivers) / derivative.every
    matrix.div_(survey.shots * survey.samples * used)
    return matrix.tril_().add_(matrix.tril(-1).T)


def sensitivity(velocity: Tensor, survey: Survey, weight: Tensor) -> Tensor:
    """The diagonal of `gauss_newton_matrix` over single cells: how much the record feels each of them.

    Args:
        velocity: As `gauss_newton_matrix`.
        survey: As `gauss_newton_matrix`.
        weight: As `gauss_newton_matrix`.

    Returns:
        (depth, width) float32, per (m/s)^2.
    """
    derivative = Derivative(velocity.detach().float(), survey)
    rows = (derivative.of_shot(shot, weight[:: derivative.every]) for shot in range(survey.shots))
    felt = torch.stack([shot.square_().sum(dim=1) for shot in rows]).sum(dim=0)
    used = len(derivative.receivers) / derivative.every
    return felt.div_(survey.shots * survey.samples * used).reshape(survey.grid)


def curvature_of_areas(velocity: Tensor, survey: Survey, weight: Tensor, areas: Tensor) -> Tensor:
    """`gauss_newton_matrix` by differences, whatever the number of areas: (areas, areas) float64 per (m/s)^2."""
    changes = torch.stack([STEP * (areas == area) for area in range(int(areas.max()) + 1)])
    return curvature_along(velocity, changes, survey, weight) / STEP**2


def curvature_along(velocity: Tensor, changes: Tensor, survey: Survey, weight: Tensor) -> Tensor:
    """The same curvature between some changes of a map, by differences: one simulation for each.

    Args:
        velocity: (depth, width) in m/s.
        changes: (changes, depth, width) in m/s: small beside what bends the record, large beside rounding.
        survey: The survey.
        weight: (time,), the weight of each time sample of the record.

    Returns:
        (changes, changes) float64, symmetric.
    """
    rows = _weighted_records(velocity, torch.cat([velocity[None], velocity + changes]), survey, weight)
    rows = rows[1:] - rows[0]
    return rows @ rows.T / rows.shape[1]


def quadratic_model(
    velocity: Tensor, changed: Tensor, gathers: Tensor, survey: Survey, weight: Tensor
) -> tuple[Tensor, Tensor, float]:
    """What J = 1/2 mean of (weight (F(v) - d))^2 would be were the changes of the record to add up.

    Args:
        velocity: (depth, width) in m/s.
        changed: (changes, depth, width) in m/s, maps that differ from it.
        gathers: (shots, time, receivers) as recorded.
        survey: The survey.
        weight: (time,), the weight of each time sample of the record.

    Returns:
        matrix (changes, changes) and slope (changes,), float64, and J at the map: with n of the changes made, it is
        J + slope^T n + 1/2 n^T matrix n.
    """
    rows = _weighted_records(velocity, torch.cat([velocity[None], changed]), survey, weight)
    residual = rows[0] - (weight[:, None] * gathers)[:, :: _often(survey)].double().flatten()
    rows = rows[1:] - rows[0]
    return rows @ rows.T / rows.shape[1], rows @ residual / rows.shape[1], 0.5 * float(residual.square().mean())


def _weighted_records(velocity: Tensor, maps: Tensor, survey: Survey, weight: Tensor) -> Tensor:
    """Of maps that differ a little from one, (maps, shots x times x receivers) float64."""
    every = _often(survey)
    slowest = velocity.min().float()
    records = (simulate(part, survey, slowest.expand(len(part))) for part in maps.float().split(BATCH))
    return torch.cat([(weight[::every, None] * record[:, :, ::every]).double().flatten(1) for record in records])


def _often(survey: Survey) -> int:
    """Time samples from one that is used to the next: twice as many as a band-limited record needs."""
    return max(1, _sampling(survey).every // 2)


@contextmanager
def _fast_products() -> Iterator[None]:
    """Products of float32 matrices from bfloat16 factors, where the processor has units for them.

    The derivatives are rounded to three digits, their squares are not: the matrix remains one of squares.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _fold(fields: Tensor, margin: int, dim: int) -> Tensor:
    """Add what belongs to the margin to the edge cells that it repeats, along one dimension."""
    before, inside, after = fields.split([margin, fields.shape[dim] - 2 * margin, margin], dim)
    first, middle, last = inside.split([1, inside.shape[dim] - 2, 1], dim)
    return torch.cat([first + before.sum(dim, keepdim=True), middle, last + after.sum(dim, keepdim=True)], dim)
