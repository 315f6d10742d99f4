"""When each tile of the padded grid has to be computed, on a GPU: `fwi_lightning.physics.reach` for many maps at once.

The CPU sweeps over one grid after the other. Here all times of all maps are renewed together from their neighbours,
in as many rounds as a wave can cross tiles within the record.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.physics.kernels import relax
from fwi_lightning.physics.reach import DIAGONAL, EARLY, EXACT, LATE, SHORTER, TILE, UNREACHED
from fwi_lightning.physics.stepping import BLOCK
from fwi_lightning.survey import Survey

ELEMENTS = 512
"""Times that one program renews."""


class Arrivals:
    """The windows of a survey's shots.

    Nothing here looks at a number on the device, so that a CUDA graph can record it.

    Attributes:
        survey: The acquisition.
        tiles: Tiles down and across the padded grid, each of 8 x 8 cells, the last ones in part outside.
        rounds: Rounds of `relax`, one for each tile that a wave can cross within the record. A stable step takes it
            over less than sqrt(3/8) of a cell, and a tile delays it by at least 1/sqrt(2) of the time across.
    """

    def __init__(self, survey: Survey, device: torch.device) -> None:
        padding, (depth, width) = survey.sponge, survey.grid
        self.survey = survey
        self.tiles = -(-(depth + 2 * padding) // TILE), -(-(width + 2 * padding) // TILE)
        self.rounds = math.ceil(survey.samples / SHORTER * math.sqrt(3 / 8 * 2) / TILE) + EXACT
        rows = np.clip(np.arange(self.tiles[0] * TILE) - padding, 0, depth - 1)
        columns = np.clip(np.arange(self.tiles[1] * TILE) - padding, 0, width - 1)
        patches, fields, distances = self._starts()
        self._rows, self._columns, self._patches, self._fields, self._distances = (
            torch.from_numpy(array).to(device) for array in (rows, columns, patches, fields, distances)
        )

    def _starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The tiles around each shot and receiver: where the times start.

        Returns:
            For each shot, then each receiver, `EXACT` tiles around its own: number of the tile, number of the time in
            the fields of a sample (one field a shot, the last for all receivers), and distance in tiles. Tiles outside
            the grid are replaced by the nearest inside.
        """
        survey, around = self.survey, np.arange(-EXACT, EXACT + 1)
        places = [(survey.shot_row, column, field) for field, column in enumerate(survey.shot_columns)]
        places += [(survey.receiver_row, column, survey.shots) for column in sorted(set(survey.receiver_columns))]
        patches, fields, distances = [], [], []
        for row, column, field in places:
            down, along = row + survey.sponge, column + survey.sponge
            a = np.clip(down // TILE + around, 0, self.tiles[0] - 1)[:, None]
            b = np.clip(along // TILE + around, 0, self.tiles[1] - 1)[None, :]
            patches.append(a * self.tiles[1] + b)
            fields.append(patches[-1] + field * self.tiles[0] * self.tiles[1])
            distances.append(np.hypot((a + 0.5) * TILE - (down + 0.5), (b + 0.5) * TILE - (along + 0.5)) / TILE)
        return np.stack(patches), np.stack(fields).ravel(), np.stack(distances).astype(np.float32)

    def windows(self, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the last step at which each tile has to be computed.

        Args:
            velocity: (samples, depth, width) float32, m/s.

        Returns:
            Two arrays (samples, shots, tiles down, tiles across) float32, whole blocks of `BLOCK` steps as on the CPU;
            a tile never counts where the first step comes after the last.
        """
        samples, shots = len(velocity), self.survey.shots
        slowness = self._slowness(velocity)
        times = self._travel(self._start(slowness), slowness)
        cell = slowness[:, None] / TILE
        first = times[:, :shots] * SHORTER.item() - EARLY.item() * cell
        last = self.survey.samples - times[:, shots:] * SHORTER.item() + LATE.item() * cell
        return (
            (first / BLOCK).floor() * BLOCK,
            ((last / BLOCK).floor() * BLOCK + BLOCK - 1).expand(samples, shots, *self.tiles),
        )

    def _slowness(self, velocity: Tensor) -> Tensor:
        """Steps to cross each tile at the fastest of its velocities, (samples, tiles down, tiles across)."""
        cells = velocity[:, self._rows][:, :, self._columns]
        down, across = self.tiles
        fastest = cells.reshape(len(velocity), down, TILE, across, TILE).amax(dim=(2, 4))
        return TILE * self.survey.spacing / (fastest * self.survey.time_step)

    def _start(self, slowness: Tensor) -> Tensor:
        """Times around shots and receivers, as if the fastest tile on the way were all there is.

        Returns:
            (samples, shots + 1, tiles down, tiles across), `UNREACHED` elsewhere.
        """
        samples, count = len(slowness), (self.survey.shots + 1) * math.prod(self.tiles)
        fastest = _fastest_on_the_way(_fastest_on_the_way(slowness.flatten(1)[:, self._patches], 2), 3)
        near = (fastest * self._distances).flatten(1)
        times = slowness.new_full((samples, count), UNREACHED.item())
        times.scatter_reduce_(1, self._fields.expand(samples, -1), near, "amin")
        return times.reshape(samples, -1, *self.tiles)

    def _travel(self, times: Tensor, slowness: Tensor) -> Tensor:
        """First-arrival times from where they start; times is overwritten."""
        result = torch.empty_like(times)
        for _ in range(self.rounds):
            relax[(-(-times.numel() // ELEMENTS),)](
                times,
                slowness,
                result,
                times.numel(),
                FIELDS=times.shape[1],
                ROWS=self.tiles[0],
                COLUMNS=self.tiles[1],
                DIAGONAL=DIAGONAL.item(),
                BLOCK=ELEMENTS,
                enable_fp_fusion=True,
            )
            times, result = result, times
        return times


def _fastest_on_the_way(patch: Tensor, dim: int) -> Tensor:
    """The smallest slowness from the middle of a patch outwards, along one dimension of 2 `EXACT` + 1 tiles."""
    lines = list(patch.unbind(dim))
    for k in range(1, EXACT + 1):
        lines[EXACT + k] = torch.minimum(lines[EXACT + k], lines[EXACT + k - 1])
        lines[EXACT - k] = torch.minimum(lines[EXACT - k], lines[EXACT - k + 1])
    return torch.stack(lines, dim)
