"""What a refiner learns from: maps as a network answers, and what the wave equation says of them, computed once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data import Part
from fwi_lightning.data.dataset import read_gathers
from fwi_lightning.data.locks import locked
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.starts import ARRAYS
from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

VERSION = 1
"""Increase when `look_at` or the simulator gives other numbers."""

BATCH = 8
"""Samples computed at a time."""

RESIDUAL_TYPE = np.float16
"""Of the residuals on the disk: they are read to three digits, and are most of what is stored."""


def look_at(gathers: Tensor, velocity: Tensor, survey: Survey) -> tuple[Tensor, Tensor]:
    """What the wave equation says of maps.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width) in m/s, such as the simulator takes.
        survey: The survey.

    Returns:
        The gathers that the maps would give, and the gradient (batch, 1, depth, width) per m/s of half the sum of
        squares of t (F(x) - d). The time t in seconds brings out late arrivals, from the deep part. The last sample is
        left out: some families store zeros there.
    """
    weight = survey.time_step * torch.arange(survey.samples, dtype=torch.float32, device=velocity.device)[:, None]
    weight[-1] = 0
    with torch.enable_grad():
        maps = velocity.detach().requires_grad_()
        record = simulate(maps[:, 0], survey)
        objective = 0.5 * (weight * (record - gathers)).square().sum()
        (gradient,) = torch.autograd.grad(objective, maps)
    return record.detach(), gradient


@dataclass(frozen=True)
class Starts:
    """Where the maps of one network lie, and how they are made.

    Attributes:
        folder: Of all networks' maps.
        network: What the maps depend on besides the data, as text: other text has another place.
        predict: Gathers (batch, shots, time, receivers) to maps (batch, 1, depth, width) in m/s that the simulator
            takes.
        survey: The survey.
        step: Every which sample of a residual is kept.
    """

    folder: Path
    network: str
    predict: Callable[[Tensor], Tensor]
    survey: Survey
    step: int

    def of(self, part: Part) -> Path:
        """The folder of a part's arrays, whether it is there or not; a file that was changed has another one."""
        status = part.gathers.stat()
        facts = [VERSION, self.network, self.survey.to_dict(), self.step, str(part.gathers.absolute())]
        facts += [status.st_size, status.st_mtime_ns]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return self.folder / f"{part.family}-{part.gathers.stem}-{digest}"

    def write(self, parts: Sequence[Part]) -> None:
        """Compute what is missing; a start after a stop goes on with the next file, one at the same time waits.

        Args:
            parts: The parts.

        Raises:
            UserError: If gathers cannot be read or the folder cannot be written.
        """
        missing = [part for part in parts if not self.of(part).is_dir()]
        if not missing:
            return
        samples = sum(part.samples for part in parts)
        done = samples - sum(part.samples for part in missing)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / ".lock"), Progress("maps to refine", done, samples) as progress:
                for part in missing:
                    if not self.of(part).is_dir():  # another process may have written it meanwhile
                        self._write_part(part, progress)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror or error}): set starts= to a folder you may write "
                "to, on a disk with space."
            ) from None

    def _write_part(self, part: Part, progress: Progress) -> None:
        """The arrays of one part, in a folder under a temporary name until they are whole."""
        maps, found = Maps(), dict[str, list[NDArray[Any]]]({name: [] for name in ARRAYS})
        for first in range(0, part.samples, BATCH):
            rows = range(first, min(first + BATCH, part.samples))
            gathers = torch.from_numpy(np.stack([read_gathers(part, row, maps) for row in rows]))
            start = self.predict(gathers)
            record, gradient = look_at(gathers, start, self.survey)
            residual = (gathers - record)[..., :: self.step, :].numpy().astype(RESIDUAL_TYPE)
            for name, array in zip(ARRAYS, (start.numpy(), residual, gradient.numpy()), strict=True):
                found[name].append(array)
            progress.advance(len(rows))
        folder = self.of(part)
        temporary = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
        temporary.mkdir()
        for name, arrays in found.items():
            np.save(temporary / f"{name}.npy", np.concatenate(arrays))
        temporary.rename(folder)
