"""The ten families by name: a seed and an index in, a velocity map out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.errors import UserError
from fwi_lightning.geology.faults import one_fault, two_stacks
from fwi_lightning.geology.layers import layers
from fwi_lightning.geology.style import style_a, style_b

Painter = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

LEAST_CELLS = 30
"""Fewest cells along either side of a map: below that, eight layers or a fault and its throw have no room."""

# The place in this table is the family's number in the seed: append, never reorder, or every map changes.
_PAINTERS: dict[str, Painter] = {
    "FlatVel_A": partial(layers, bent=False, growing=True),
    "FlatVel_B": partial(layers, bent=False, growing=False),
    "CurveVel_A": partial(layers, bent=True, growing=True),
    "CurveVel_B": partial(layers, bent=True, growing=False),
    "FlatFault_A": partial(one_fault, bent=False),
    "FlatFault_B": partial(two_stacks, bent=False),
    "CurveFault_A": partial(one_fault, bent=True),
    "CurveFault_B": partial(two_stacks, bent=True),
    "Style_A": style_a,
    "Style_B": style_b,
}

FAMILIES: tuple[str, ...] = tuple(_PAINTERS)
"""The ten families by their OpenFWI names, in a fixed order."""


def draw(family: str, count: int, seed: int, start: int = 0, shape: tuple[int, int] = (70, 70)) -> NDArray[np.float32]:
    """Draw velocity maps of one family.

    Map i depends on (seed, family, i, shape) alone, so `draw(f, 10, s)[5]` is `draw(f, 1, s, start=5)[0]`:
    a long simulation resumes where it stopped, and its parts can be made on different machines.

    Args:
        family: One of `FAMILIES`.
        count: Number of maps, at least 1.
        seed: Whole number, 0 or more.
        start: Index of the first map. Default 0.
        shape: Cells of a map, (depth, width), each at least 30. Default (70, 70), as in OpenFWI. In the Vel and
            Fault families lengths along depth (thicknesses, throws, bends) grow with the depth; lengths along
            the line, and those of the Style textures, keep their number of cells.

    Returns:
        (count, 1, depth, width) float32, m/s, all within 1500..4500; whole numbers in the Vel and Fault
        families.

    Raises:
        UserError: If the family is unknown, or a number is out of range.
    """
    if family not in _PAINTERS:
        raise UserError(f"Unknown family {family!r}. Known families: {', '.join(FAMILIES)}.")
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("start", start, 0)):
        if not isinstance(value, Integral) or value < least:
            raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    depth, width = _checked_shape(shape)
    painter, number = _PAINTERS[family], FAMILIES.index(family)
    maps = np.empty((count, 1, depth, width), np.float32)
    for offset in range(count):
        # spawn_key, not a longer entropy: seeds of any size then never collide with indices
        sequence = np.random.SeedSequence(entropy=int(seed), spawn_key=(number, int(start) + offset))
        maps[offset, 0] = painter(np.random.default_rng(sequence), (depth, width))
    return maps


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return (depth, width) as plain integers, or say what is wrong with the shape."""
    sides = tuple(shape)
    if len(sides) != 2 or any(not isinstance(side, Integral) or side < LEAST_CELLS for side in sides):
        raise UserError(f"shape must be (depth, width) of at least {LEAST_CELLS} cells each, got {shape}.")
    return int(sides[0]), int(sides[1])
