"""Many shots through time at once, and their gradient back: what a GPU does with a chunk of maps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fwi_lightning.physics.arrivals import Arrivals
from fwi_lightning.physics.kernels import GHOSTS, advance
from fwi_lightning.physics.reach import TILE
from fwi_lightning.physics.scheme import sponge_profile
from fwi_lightning.survey import Survey

TILE_ROWS, TILE_COLUMNS = 16, 64
"""Cells of a tile, which one program computes: multiples of `reach.TILE` and powers of 2. Larger ones share more
neighbours, smaller ones follow the front more closely."""

WARPS = 4
"""Groups of 32 threads to a tile."""

SECTOR = 8
"""Rows of a field begin at multiples of this: the float32 numbers that a GPU reads at once."""

INTERVAL = 32
"""Steps between two stored states, for the gradient; an even number, so that the fields are then in their order."""


class Coefficients(NamedTuple):
    """What follows from the maps."""

    alpha: Tensor
    """(samples, depth, width), one twelfth of alpha."""
    keep: Tensor
    """(samples, padding + 1), 1 - kappa by the distance from the map in cells."""
    first: Tensor
    """(samples x shots, tiles down, tiles across) int32, the first step at which a tile is computed."""
    last: Tensor
    """As first, the last step."""


class Batch:
    """All runs of one survey on one device, in one precision.

    A run is a sequence of launches that does not depend on any number on the device, so that a CUDA graph can record
    it. Its argument `velocity` is (samples, depth, width) in m/s, `slowest` (samples,) in m/s.

    Attributes:
        survey: The acquisition.
        dtype: float32, or float64, in which all tiles are computed in all steps.
        tiles: Tiles down and across the padded grid, the last ones in part outside.
        stride: From a row to the next in a field.
        field: Numbers of a field in memory.
    """

    def __init__(self, survey: Survey, dtype: torch.dtype, device: torch.device) -> None:
        self.survey, self.dtype, self.device = survey, dtype, device
        self.rows, self.columns = (cells + 2 * survey.sponge for cells in survey.grid)
        self.tiles = -(-self.rows // TILE_ROWS), -(-self.columns // TILE_COLUMNS)
        self.stride = self.tiles[1] * TILE_COLUMNS + 2 * SECTOR
        self.field = (self.tiles[0] * TILE_ROWS + 2 * GHOSTS) * self.stride
        self.arrivals = Arrivals(survey, device)
        self._profile = torch.from_numpy(sponge_profile(survey)).to(device)
        # Divisors on the device: torch would multiply by the reciprocal of a plain number, which rounds differently.
        self._spacing = torch.full((), survey.spacing, dtype=dtype, device=device)
        self._twelve = torch.full((), 12.0, dtype=dtype, device=device)
        self._receivers = torch.tensor(survey.receiver_columns, device=device)
        self._places = [torch.tensor(places, device=device) for places in _places_of_columns(survey)]
        pulses = np.zeros((survey.shots, survey.samples, survey.grid[1]))
        for shot, column in enumerate(survey.shot_columns):
            pulses[shot, :, column] = 12 * survey.spacing**2 * survey.wavelet()
        self._pulses = torch.from_numpy(pulses).to(device, dtype)

    @property
    def bytes_per_sample(self) -> int:
        """Memory of the two fields of all shots of a sample."""
        return 2 * self.survey.shots * self.field * self.dtype.itemsize

    def forward(self, velocity: Tensor, slowest: Tensor) -> tuple[Tensor]:
        """The gathers, (samples, shots, time, receivers)."""
        coefficients = self._prepare(velocity, slowest, hears=True)
        fields, record = self._fields(2, velocity), self._lines(velocity)
        self._run(coefficients, fields, range(self.survey.samples), record=record)
        return (self._gathers(record),)

    def illuminate(self, velocity: Tensor, slowest: Tensor) -> tuple[Tensor, Tensor]:
        """The gathers, and the energy of the Laplacian and the source, (samples, depth, width)."""
        coefficients = self._prepare(velocity, slowest, hears=False)
        fields, record, image = self._fields(2, velocity), self._lines(velocity), self._fields(1, velocity)[0]
        self._run(coefficients, fields, range(self.survey.samples), record=record, image=image)
        padding, (depth, width) = self.survey.sponge, self.survey.grid
        energy = self._sum_of_shots(image).narrow(1, padding, depth).narrow(2, padding, width)
        return self._gathers(record), (energy / (12 * self.survey.spacing**2) ** 2).to(self.dtype)

    def backward(self, velocity: Tensor, slowest: Tensor, residual: Tensor) -> tuple[Tensor]:
        """The gradient, (samples, depth, width), from that with respect to the gathers, (samples, shots, time, ...)."""
        coefficients = self._prepare(velocity, slowest, hears=True)
        blocks = [range(start, self.survey.samples)[:INTERVAL] for start in range(0, self.survey.samples, INTERVAL)]
        fields, states = self._fields(2, velocity), []
        for block in blocks:
            states.append(fields.clone())
            self._run(coefficients, fields, block)

        lines, image = self._residual_lines(residual), self._fields(1, velocity)[0]
        ahead, beyond = self._fields(2, velocity)  # the adjoint fields one and two steps on
        laplacians = self._fields(INTERVAL, velocity)
        for block in reversed(blocks):
            fields.copy_(states.pop())
            self._run(coefficients, fields, block, laplacians=laplacians)
            for step in reversed(block):
                laplacian = laplacians[step - block[0]]
                self._advance(
                    coefficients, ahead, beyond, step, lines, self.survey.receiver_row, None, laplacian, image
                )
                ahead, beyond = beyond, ahead
        padding = self.survey.sponge
        total = _fold(_fold(self._sum_of_shots(image), padding, 1), padding, 2)
        return ((2 * total / velocity).to(self.dtype),)

    def _prepare(self, velocity: Tensor, slowest: Tensor, hears: bool) -> Coefficients:
        """The coefficients of the maps; `hears` says whether only what can reach a receiver counts."""
        ratio = velocity * self.survey.time_step / self._spacing
        kappa = self._profile * slowest.double()[:, None]
        keep = 1 - pad(kappa, (1, 0))
        return Coefficients(ratio * ratio / self._twelve, keep.to(self.dtype), *self._windows(velocity, hears))

    def _windows(self, velocity: Tensor, hears: bool) -> tuple[Tensor, Tensor]:
        """The first and the last step of each tile of the kernel: of the smaller tiles in it, whichever counts."""
        shape = len(velocity) * self.survey.shots, *self.tiles
        if self.dtype == torch.float64:
            every = torch.zeros(shape, dtype=torch.int32, device=self.device)
            return every, every + self.survey.samples
        first, last = self.arrivals.windows(velocity)
        last = last if hears else torch.full_like(last, self.survey.samples)
        return self._earliest(first).view(shape), -self._earliest(-last).view(shape)

    def _earliest(self, times: Tensor) -> Tensor:
        """The smallest number of the small tiles in each tile of the kernel, int32."""
        never = self.survey.samples + 1
        down, across = TILE_ROWS // TILE, TILE_COLUMNS // TILE
        missing = self.tiles[0] * down - times.shape[2], self.tiles[1] * across - times.shape[3]
        whole = pad(times, (0, missing[1], 0, missing[0]), value=never)
        return whole.clamp(-never, never).unflatten(2, (-1, down)).unflatten(4, (-1, across)).amin(dim=(3, 5)).int()

    def _fields(self, count: int, velocity: Tensor) -> Tensor:
        """Fields at rest, (count, samples x shots, field)."""
        return velocity.new_zeros(count, len(velocity) * self.survey.shots, self.field)

    def _lines(self, velocity: Tensor) -> Tensor:
        """Zeros along a row of the map, (samples x shots, time, width)."""
        return velocity.new_zeros(len(velocity) * self.survey.shots, self.survey.samples, self.survey.grid[1])

    def _run(
        self,
        coefficients: Coefficients,
        fields: Tensor,
        steps: range,
        record: Tensor | None = None,
        laplacians: Tensor | None = None,
        image: Tensor | None = None,
    ) -> None:
        """The shots through some steps; the present field is the first of the two."""
        now, old = fields
        for step in steps:
            laplacian = None if laplacians is None else laplacians[step - steps[0]]
            self._advance(coefficients, now, old, step, self._pulses, self.survey.shot_row, record, laplacian, image)
            now, old = old, now

    def _advance(
        self,
        coefficients: Coefficients,
        now: Tensor,
        old: Tensor,
        step: int,
        inject: Tensor,
        inject_row: int,
        record: Tensor | None,
        laplacian: Tensor | None,
        image: Tensor | None,
    ) -> None:
        """One launch of `fwi_lightning.physics.kernels.advance`, which says what the arguments are."""
        survey = self.survey
        advance[(self.tiles[1], self.tiles[0], len(now))](
            now,
            old,
            *coefficients,
            inject,
            record,
            laplacian,
            image,
            step,
            DEPTH=survey.grid[0],
            WIDTH=survey.grid[1],
            PADDING=survey.sponge,
            SAMPLES=survey.samples,
            SHOTS=survey.shots,
            LINES=len(inject),
            INJECT_ROW=inject_row + survey.sponge,
            RECORD_ROW=survey.receiver_row + survey.sponge,
            ORIGIN=GHOSTS * self.stride + SECTOR,
            STRIDE=self.stride,
            FIELD=self.field,
            TILE_ROWS=TILE_ROWS,
            TILE_COLUMNS=TILE_COLUMNS,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )

    def _gathers(self, record: Tensor) -> Tensor:
        return record[:, :, self._receivers].unflatten(0, (-1, self.survey.shots))

    def _residual_lines(self, residual: Tensor) -> Tensor:
        """What the receivers push along their row, (samples x shots, time, width); those in one column together.

        Selecting is the same in each run; adding by index, on a GPU, is not.
        """
        padded = pad(residual.flatten(0, 1), (0, 1))
        return torch.stack([padded.index_select(2, places) for places in self._places]).sum(dim=0)

    def _sum_of_shots(self, image: Tensor) -> Tensor:
        """Float64, (samples, rows, columns) of the padded grid."""
        cells = image.view(-1, self.survey.shots, self.field // self.stride, self.stride)
        cells = cells[:, :, GHOSTS : GHOSTS + self.rows, SECTOR : SECTOR + self.columns]
        return cells.sum(dim=1, dtype=torch.float64)


def _places_of_columns(survey: Survey) -> list[list[int]]:
    """For each column of the map a receiver in it, or one beyond the last; a list more where columns have several."""
    receivers: list[list[int]] = [[] for _ in range(survey.grid[1])]
    for place, column in enumerate(survey.receiver_columns):
        receivers[column].append(place)
    most = max(map(len, receivers))
    return [[(*there, *[survey.receivers] * most)[k] for there in receivers] for k in range(most)]


def _fold(total: Tensor, padding: int, dim: int) -> Tensor:
    """Add what belongs to the padding to the edge cells that it repeats, along one dimension."""
    before, inside, after = total.split([padding, total.shape[dim] - 2 * padding, padding], dim)
    first, middle, last = inside.split([1, inside.shape[dim] - 2, 1], dim)
    return torch.cat([first + before.sum(dim, keepdim=True), middle, last + after.sum(dim, keepdim=True)], dim)
