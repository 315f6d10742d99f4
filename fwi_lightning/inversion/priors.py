"""What is known of a velocity map before its record is seen, as an energy with its gradient and curvature."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Prior(Protocol):
    """An energy of maps, lower for more likely ones.

    Attributes:
        quadratic: Whether its curvature is the same everywhere.
    """

    quadratic: bool

    def energy(self, velocity: Tensor) -> tuple[float, Tensor]:
        """The energy and its gradient at a map, (depth, width) float64 in m/s."""

    def add_curvature(self, matrix: Tensor, velocity: Tensor, weight: float, areas: Tensor) -> None:
        """Add a weight times the curvature of a quadratic that lies above the energy to a matrix, in place.

        Args:
            matrix: (areas, areas).
            velocity: (depth, width) in m/s, where the quadratic touches the energy.
            weight: Of the energy.
            areas: (depth, width), number of the area of each cell; cells of an area share one velocity.
        """


class TotalVariation:
    """Layers: sum over cells of importance * (sqrt(|grad v|^2 + smoothing^2) - smoothing).

    Rudin, Osher and Fatemi (1992, Physica D 60); the quadratic above it is that of the lagged diffusivity of Vogel and
    Oman (1996, SIAM Journal on Scientific Computing 17). |grad v| is the difference to the next cells in m/s.

    The record feels deep cells little: with the same weight everywhere the prior would flatten them long before the
    data have their say. An importance that falls with the record's sensitivity leaves them as they are until then.

    Args:
        importance: (depth, width), of each cell.
        smoothing: m/s below which a step between cells counts less than in proportion.
    """

    quadratic = False

    def __init__(self, importance: Tensor, smoothing: float) -> None:
        self.importance, self.smoothing = importance.double(), smoothing

    def energy(self, velocity: Tensor) -> tuple[float, Tensor]:
        """As `Prior`."""
        down, across, norm = self._steps(velocity)
        value = float((self.importance * (norm - self.smoothing)).sum())
        down, across = self.importance * down / norm, self.importance * across / norm
        gradient = -down - across
        gradient[1:] += down[:-1]
        gradient[:, 1:] += across[:, :-1]
        return value, gradient

    def add_curvature(self, matrix: Tensor, velocity: Tensor, weight: float, areas: Tensor) -> None:
        """As `Prior`."""
        stiffness = (weight * self.importance / self._steps(velocity)[2]).to(matrix.dtype)
        for here, there, stiff in (
            (areas[:-1], areas[1:], stiffness[:-1]),
            (areas[:, :-1], areas[:, 1:], stiffness[:, :-1]),
        ):
            for rows, columns, sign in ((here, here, 1), (there, there, 1), (here, there, -1), (there, here, -1)):
                matrix.index_put_((rows.flatten(), columns.flatten()), sign * stiff.flatten(), accumulate=True)

    def _steps(self, velocity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Differences downwards and to the right, 0 at the last row and column, and their smoothed norm."""
        down = torch.nn.functional.pad(velocity.diff(dim=0), (0, 0, 0, 1))
        across = torch.nn.functional.pad(velocity.diff(dim=1), (0, 1))
        return down, across, (down.square() + across.square() + self.smoothing**2).sqrt()


class Texture(NamedTuple):
    """Kernel of a Gaussian process: correlated deviations from a background, and white ones.

    Attributes:
        length: Cells over which the squared-exponential kernel falls to exp(-1/2).
        deviation: m/s, of the correlated part.
        noise: m/s, of the white part.
    """

    length: float
    deviation: float
    noise: float


class GaussianProcess:
    """Texture: 1/2 (v - background)^T C^-1 (v - background), the background growing evenly with depth.

    The kernel is a product of one in depth and one in width, so C is diagonal in the product of their eigenvectors.

    Args:
        velocity: (depth, width) in m/s: the straight line in depth that fits it best is the background.
        texture: The kernel.
    """

    quadratic = True

    def __init__(self, velocity: Tensor, texture: Texture) -> None:
        depth, width = velocity.shape
        row = np.arange(depth)
        slope, offset = np.polyfit(row, velocity.double().mean(dim=1).numpy(), 1)
        self.background = torch.from_numpy(offset + slope * row)[:, None].expand(depth, width)
        (self._deep, deep), (self._wide, wide) = (_eigen(size, texture.length) for size in (depth, width))
        self._precision = 1 / (texture.deviation**2 * deep[:, None] * wide + texture.noise**2)
        self._matrix: Tensor | None = None

    def energy(self, velocity: Tensor) -> tuple[float, Tensor]:
        """As `Prior`."""
        deviation = velocity - self.background
        modes = self._deep.T @ deviation @ self._wide
        gradient = self._deep @ (self._precision * modes) @ self._wide.T
        return 0.5 * float((deviation * gradient).sum()), gradient

    def add_curvature(self, matrix: Tensor, velocity: Tensor, weight: float, areas: Tensor) -> None:
        """As `Prior`, for areas of single cells; the energy is quadratic, its curvature the same everywhere."""
        if self._matrix is None:
            modes = torch.kron(self._deep.float(), self._wide.float())
            self._matrix = (modes * self._precision.float().flatten()) @ modes.T
        matrix.add_(self._matrix.to(matrix.dtype), alpha=weight)


def _eigen(size: int, length: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors (size, size) and eigenvalues of a squared-exponential kernel of deviation 1 along a line."""
    place = torch.arange(size, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.exp(-0.5 * ((place[:, None] - place) / length).square()))
    return vectors, values.clamp_min(0)


TEXTURES = {"Style_A": Texture(3.48, 183.0, 5.0), "Style_B": Texture(1.96, 158.0, 58.0)}
"""Kernels fitted to OpenFWI's Style families in the second place of the Kaggle competition. Style_A's white noise,
0.1 m/s there, is raised to what single precision can tell."""
