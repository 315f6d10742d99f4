"""New maps made of those at hand; their gathers are simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.augment.base import (
    Augmentation,
    Partner,
    Sample,
    check_probability,
    check_range,
    check_size,
)
from fwi_lightning.errors import UserError
from fwi_lightning.physics.scheme import largest_stable_velocity
from fwi_lightning.survey import Survey

Map = NDArray[np.float32]
"""A velocity map without its channel: (depth, width), m/s."""


class Physics(Augmentation):
    """Changes the ground and simulates the gathers again, so that the pair is exact by construction.

    In this order, each with its own probability: blend with another map, crop, warp, flip, scale. A sample that none
    of them touched keeps its recorded gathers; so does one whose new map the survey's time step could not carry.

    Crops and warps take the nearest cell and never a mean of several, because a mean would put velocities between
    two layers that neither has, and blur the steps that the network is to find. Beyond the edges of a map its edge
    values go on, as they do in the simulation.

    Args:
        survey: The survey of the gathers.
        blend: Share of the samples that are blended with another training sample's map. Default 0.25.
        blend_weight: Weight of that other map, 0 to 1; the first map's is the rest, and its family stays the
            sample's. Default (0.1, 0.5).
        same_family: Share of the blends in which the other map is of the same family. Default 0.5.
        crop: Share of which a window is stretched to the whole map. Default 0.25.
        crop_size: Sides of the window over those of the map, above 0 and up to 1. Default (0.6, 1).
        warp: Share that is rotated, scaled and sheared about the middle of the map. Default 0.25.
        rotation: Largest angle either way in degrees, up to 45. Default 10.
        scaling: Factor on lengths, 0.2 to 5. Default (0.85, 1.15).
        shear: Largest sideways shift per depth either way, up to 1. Default 0.15.
        flip: Share that is mirrored left to right. Default 0.5.
        scale: Share whose velocities are all multiplied by one factor. Default 0.25.
        scale_factor: That factor. It is drawn from the part of this range that keeps the map within
            `velocity_range`; a map for which there is none stays. Default (0.9, 1.1).
        velocity_range: Bounds for scaled velocities in m/s. Default (1500, 4500).

    Raises:
        UserError: If a probability or a range is out of range, or no map could be scaled so.
    """

    def __init__(
        self,
        survey: Survey,
        blend: float = 0.25,
        blend_weight: Sequence[float] = (0.1, 0.5),
        same_family: float = 0.5,
        crop: float = 0.25,
        crop_size: Sequence[float] = (0.6, 1.0),
        warp: float = 0.25,
        rotation: float = 10.0,
        scaling: Sequence[float] = (0.85, 1.15),
        shear: float = 0.15,
        flip: float = 0.5,
        scale: float = 0.25,
        scale_factor: Sequence[float] = (0.9, 1.1),
        velocity_range: Sequence[float] = (1500.0, 4500.0),
    ) -> None:
        super().__init__(survey)
        self.operations = (
            (check_probability("blend", blend), self._blend),
            (check_probability("crop", crop), self._crop),
            (check_probability("warp", warp), self._warp),
            (check_probability("flip", flip), self._flip),
            (check_probability("scale", scale), self._scale),
        )
        self.blend_weight = check_range("blend_weight", blend_weight, 0, 1)
        self.same_family = check_probability("same_family", same_family)
        self.crop_size = check_range("crop_size", crop_size, 2 / min(survey.grid), 1)
        self.rotation = check_size("rotation", rotation, 45)
        self.scaling = check_range("scaling", scaling, 0.2, 5)
        self.shear = check_size("shear", shear, 1)
        self.scale_factor = check_range("scale_factor", scale_factor, 1e-3, 1e3)
        self.velocity_range = check_range("velocity_range", velocity_range, 100, 12000)
        widest = self.velocity_range[1] / self.velocity_range[0]
        if self.scale_factor[0] > widest or self.scale_factor[1] < 1 / widest:
            raise UserError(
                f"scale_factor={list(scale_factor)} would bring every map out of velocity_range="
                f"{list(velocity_range)} m/s: choose factors that include some of {1 / widest:.3g} to {widest:.3g}."
            )

    def change(self, sample: Sample, generator: np.random.Generator, partner: Partner) -> Sample:
        """The sample over a new map, to be simulated, or the sample."""
        before: Map = sample.velocity[0].numpy()
        after = before
        for probability, operation in self.operations:
            if generator.random() < probability:
                after = operation(after, generator, partner)
        stable = after.max() <= largest_stable_velocity(self.survey, float(after.min()))
        if np.array_equal(after, before) or not stable:
            return sample
        return sample.over(torch.from_numpy(np.ascontiguousarray(after, dtype=np.float32))[None])

    def _blend(self, velocity: Map, generator: np.random.Generator, partner: Partner) -> Map:
        """A weighted mean with another map: the layers of both, at weaker contrasts."""
        weight = generator.uniform(*self.blend_weight)
        same = bool(generator.random() < self.same_family)
        other: Map = partner(generator, same)[0].numpy()
        return ((1 - weight) * velocity + weight * other).astype(np.float32)

    def _crop(self, velocity: Map, generator: np.random.Generator, partner: Partner) -> Map:
        """A window, anywhere in the map, as large as the map."""
        size = generator.uniform(*self.crop_size)
        depth, width = velocity.shape
        top, left = generator.uniform(0, (1 - size) * depth), generator.uniform(0, (1 - size) * width)
        rows, columns = _centres(velocity)
        return _nearest(velocity, top + size * rows, left + size * columns)

    def _warp(self, velocity: Map, generator: np.random.Generator, partner: Partner) -> Map:
        """The map rotated, scaled and sheared about its middle."""
        angle = np.radians(generator.uniform(-self.rotation, self.rotation))
        shear = generator.uniform(-self.shear, self.shear)
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = generator.uniform(*self.scaling) * rotate @ np.array([[1.0, 0.0], [shear, 1.0]])
        back = np.linalg.inv(forward)
        rows, columns = _centres(velocity)
        middle = velocity.shape[0] / 2, velocity.shape[1] / 2
        down, right = rows - middle[0], columns - middle[1]
        return _nearest(
            velocity,
            middle[0] + back[0, 0] * down + back[0, 1] * right,
            middle[1] + back[1, 0] * down + back[1, 1] * right,
        )

    def _flip(self, velocity: Map, generator: np.random.Generator, partner: Partner) -> Map:
        """The map with left and right exchanged."""
        return velocity[:, ::-1]

    def _scale(self, velocity: Map, generator: np.random.Generator, partner: Partner) -> Map:
        """The map times a factor that keeps it within the velocity range."""
        low = max(self.scale_factor[0], self.velocity_range[0] / float(velocity.min()))
        high = min(self.scale_factor[1], self.velocity_range[1] / float(velocity.max()))
        if low > high:
            return velocity
        # Rounding must not carry a velocity over the bound that the factor was chosen for.
        return np.clip(velocity * generator.uniform(low, high), *self.velocity_range).astype(np.float32)


def _centres(velocity: Map) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (depth, 1) and columns (1, width) of the middles of a map's cells: cell i reaches from i to i + 1."""
    depth, width = velocity.shape
    return np.arange(0.5, depth)[:, None], np.arange(0.5, width)[None, :]


def _nearest(velocity: Map, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Map:
    """The map at some places: the cell that each lies in, beyond the edges the outermost one."""
    depth, width = velocity.shape
    row = np.clip(np.floor(rows), 0, depth - 1).astype(np.intp)
    column = np.clip(np.floor(columns), 0, width - 1).astype(np.intp)
    return velocity[row, column]
