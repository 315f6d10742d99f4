"""What a family's gathers and velocity maps are like, gathered up sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from fwi_lightning.geology import FAMILIES
from fwi_lightning.geology.boundaries import boundaries
from fwi_lightning.survey import Survey


@dataclass
class Moments:
    """Extremes, mean and standard deviation of values that come in pieces; NaN before the first."""

    count: int = 0
    least: float = np.nan
    most: float = np.nan
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: NDArray[np.float32], squares: float | None = None) -> None:
        """Take in an array of any shape; `squares` is the sum of its squares, where that is known already."""
        self.count += values.size
        self.least = float(np.fmin(self.least, values.min()))
        self.most = float(np.fmax(self.most, values.max()))
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum()) if squares is None else squares

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.total / self.count if self.count else np.nan

    @property
    def std(self) -> float:
        """Standard deviation of all values."""
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0.0))) if self.count else np.nan


@dataclass
class Example:
    """A sample to show.

    Attributes:
        place: Its file and row.
        gathers: (shots, time, receivers).
        velocity: (depth, width) in m/s, or None without labels.
    """

    place: str
    gathers: NDArray[np.float32]
    velocity: NDArray[np.float32] | None


@dataclass
class Family:
    """A family's samples in numbers.

    Attributes:
        name: Its name.
        survey: The survey.
        files: Files of gathers.
        samples: Samples in these files.
        read: Samples that were read.
        gathers: Of the gathers that are sound.
        velocity: Of the maps that are sound, m/s.
        heard: Gathers that are sound.
        last_sample_zero: Gathers among them whose last time sample is all zeros.
        maps: Maps that are sound.
        spectra: Samples in `spectrum`.
        example: A sound sample, or None before the first.
    """

    name: str
    survey: Survey
    files: int = 0
    samples: int = 0
    read: int = 0
    gathers: Moments = field(default_factory=Moments)
    velocity: Moments = field(default_factory=Moments)
    heard: int = 0
    last_sample_zero: int = 0
    maps: int = 0
    spectra: int = 0
    example: Example | None = None

    def __post_init__(self) -> None:
        depth = self.survey.grid[0]
        self._sum, self._squares, self._boundaries = np.zeros(depth), np.zeros(depth), np.zeros(depth)
        self._spectrum = np.zeros(len(self.frequencies))

    @property
    def known(self) -> bool:
        """Whether it is one of OpenFWI's ten."""
        return self.name in FAMILIES

    def add_gathers(self, gathers: NDArray[np.float32], squares: float, spectrum: bool) -> None:
        """Take in the gathers of a sample.

        Args:
            gathers: (shots, time, receivers), finite.
            squares: The sum of their squares.
            spectrum: Whether their spectrum, which takes as long as all the rest, is wanted.
        """
        self.heard += 1
        self.gathers.add(gathers, squares)
        self.last_sample_zero += not gathers[:, -1].any()
        if spectrum:
            self.spectra += 1
            self._spectrum += np.abs(scipy.fft.rfft(gathers, axis=1)).mean(axis=(0, 2))

    def add_velocity(self, velocity: NDArray[np.float32]) -> None:
        """Take in a map, (depth, width) in m/s, finite."""
        self.maps += 1
        self.velocity.add(velocity)
        self._sum += velocity.mean(axis=1, dtype=np.float64)
        self._squares += np.square(velocity, dtype=np.float64).mean(axis=1)
        self._boundaries += boundaries(torch.from_numpy(velocity)).numpy().mean(axis=1)

    @property
    def profile(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean velocity of each row and its standard deviation over columns and maps, (depth,) m/s each."""
        mean = self._sum / max(self.maps, 1)
        variance = self._squares / max(self.maps, 1) - mean**2
        return mean, np.sqrt(variance.clip(min=0.0))

    @property
    def boundary_density(self) -> NDArray[np.float64]:
        """Share of the cells of each row that lie at a boundary, (depth,)."""
        return self._boundaries / max(self.maps, 1)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Of the spectrum, Hz."""
        return np.arange(self.survey.samples // 2 + 1) / (self.survey.samples * self.survey.time_step)

    @property
    def spectrum(self) -> NDArray[np.float64]:
        """Mean amplitude spectrum of the traces, relative to its peak; zeros before the first."""
        peak = self._spectrum.max(initial=0.0)
        return self._spectrum / peak if peak else self._spectrum

    @property
    def peak_frequency(self) -> float:
        """Where the spectrum is largest, Hz; NaN before the first."""
        return float(self.frequencies[self._spectrum.argmax()]) if self.spectra else np.nan
