"""The acquisition: where the shots and receivers stand, how long they listen, which wavelet they send."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.errors import UserError


@dataclass(frozen=True)
class Survey:
    """A surface survey over a regular grid of square cells.

    Columns and rows count cells from the upper left corner of the velocity map, starting at 0.

    Attributes:
        grid: Cells of the velocity map, (depth, width). Default (70, 70).
        spacing: Edge of a cell in metres. Default 10.
        samples: Time samples in a record. Default 1000.
        time_step: Seconds between two samples; also the step of the simulation. Default 0.001.
        frequency: Peak frequency of the Ricker wavelet in Hz. Default 15.
        shot_columns: Column of each shot. Default (0, 17, 34, 52, 69).
        shot_row: Row of all shots. Default 1.
        receiver_columns: Column of each receiver. Default: every column of 70.
        receiver_row: Row of all receivers. Default 1.
        sponge: Cells of absorbing padding on each side of the map. Default 120.

    Raises:
        UserError: If a number is out of range, or a shot or receiver stands outside the grid.
    """

    grid: tuple[int, int] = (70, 70)
    spacing: float = 10.0
    samples: int = 1000
    time_step: float = 0.001
    frequency: float = 15.0
    shot_columns: tuple[int, ...] = (0, 17, 34, 52, 69)
    shot_row: int = 1
    receiver_columns: tuple[int, ...] = tuple(range(70))
    receiver_row: int = 1
    sponge: int = 120

    def __post_init__(self) -> None:
        """Turn lists into tuples (a survey read from YAML has lists), then check every number."""
        for name in ("grid", "shot_columns", "receiver_columns"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        if len(self.grid) != 2 or min(self.grid) < 3:
            raise UserError(f"grid must be (depth, width) of at least 3 cells each, got {self.grid}.")
        for name in ("spacing", "time_step", "frequency"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise UserError(f"{name} must be a positive number, got {value}.")
        for name, least in (("samples", 1), ("sponge", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        depth, width = self.grid
        for name in ("shot", "receiver"):
            row, columns = getattr(self, f"{name}_row"), getattr(self, f"{name}_columns")
            if not columns:
                raise UserError(f"{name}_columns is empty: a survey needs at least one {name}.")
            if not 0 <= row < depth:
                raise UserError(f"{name}_row must be 0 to {depth - 1} on a grid of depth {depth}, got {row}.")
            outside = [column for column in columns if not 0 <= column < width]
            if outside:
                raise UserError(
                    f"{name}_columns must be 0 to {width - 1} on a grid of width {width}, got {outside[0]}."
                )

    @classmethod
    def surface(cls, width: int, depth: int = 70, shots: int = 5, **changes: Any) -> Survey:
        """An OpenFWI-like survey of another width: shots spread evenly from edge to edge, a receiver in every column.

        Args:
            width: Columns of the map.
            depth: Rows of the map. Default 70.
            shots: Number of shots, at round-half-even(linspace(0, width - 1, shots)). Default 5.
            **changes: Any other attribute of `Survey`.

        Returns:
            The survey.

        Raises:
            UserError: As `Survey`.
        """
        columns = np.round(np.linspace(0, width - 1, shots)).astype(int)
        return cls(
            grid=(depth, width),
            shot_columns=tuple(columns.tolist()),
            receiver_columns=tuple(range(width)),
            **changes,
        )

    @property
    def shots(self) -> int:
        """Number of shots."""
        return len(self.shot_columns)

    @property
    def receivers(self) -> int:
        """Number of receivers."""
        return len(self.receiver_columns)

    @property
    def gathers_shape(self) -> tuple[int, int, int]:
        """Shape of the gathers of one sample: (shots, time, receivers)."""
        return self.shots, self.samples, self.receivers

    def thinning(self, name: str, time_step: float) -> int:
        """Of how many samples one is kept for a longer time step.

        Args:
            name: What the time step is called in an error.
            time_step: Seconds between the samples that are kept.

        Returns:
            The number, 1 or more.

        Raises:
            UserError: If the time step is not a multiple of the survey's, or too long for its wavelet.
        """
        step = round(time_step / self.time_step)
        if step < 1 or not np.isclose(step * self.time_step, time_step):
            raise UserError(f"{name} must be a multiple of the survey's {self.time_step:g} s, got {time_step:g} s.")
        if step > 1 and time_step * 6 * self.frequency > 1:
            # A Ricker wavelet is down to a hundredth of its peak at three times its peak frequency.
            raise UserError(
                f"{name}={time_step:g} s is too long for a wavelet that ends at {3 * self.frequency:g} Hz: "
                f"at most {1 / (6 * self.frequency):.3g} s."
            )
        return step

    def thinned(self, step: int) -> tuple[int, int, int]:
        """Shape of the gathers of one sample of which every `step`-th time sample is kept, beginning with the first."""
        return self.shots, -(-self.samples // step), self.receivers

    def thinning_of(self, samples: int) -> int:
        """Of how many time samples a record of this survey kept one, told by its length.

        Args:
            samples: Time samples of the record.

        Returns:
            The number, 1 for a record with all of them.

        Raises:
            UserError: If no thinning that `thinning` allows leaves so many.
        """
        step = -(-self.samples // max(samples, 1))
        if self.thinned(step)[1] != samples or (step > 1 and step * self.time_step * 6 * self.frequency > 1):
            raise UserError(f"a record of {samples} samples is not one of this survey, which has {self.samples}.")
        return step

    def wavelet(self) -> NDArray[np.float64]:
        """The source's time function: a Ricker wavelet that starts with the record.

        w[i] = (1 - 2 b^2) exp(-b^2) with b = (c - i) f dt pi, c the centre sample; 147 samples with c = 73 at the
        OpenFWI setting (2.2 periods, made odd), zeros after that. Source: the FWI forward code released with OpenFWI
        (Deng et al., 2022, arXiv:2111.02926).

        Returns:
            (samples,) float64, without unit.
        """
        length = int(np.floor(2.2 / (self.frequency * self.time_step) / 2)) * 2 + 1
        centre = length // 2
        b = (centre - np.arange(length)) * self.frequency * self.time_step * np.pi
        pulse = (1 - 2 * b**2) * np.exp(-(b**2))
        wavelet = np.zeros(self.samples)
        wavelet[: min(length, self.samples)] = pulse[: self.samples]
        return wavelet

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for checkpoints, manifests and configuration files."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


OPENFWI = Survey()
"""The survey of OpenFWI and of the Kaggle competition "Geophysical Waveform Inversion"."""
