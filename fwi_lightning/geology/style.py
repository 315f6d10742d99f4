"""The Style families: the texture of a photograph laid over a background that grows with depth.

Nobody has published the images. A photograph is, to first order, objects in front of each other, each with its own
brightness and a soft shading (the "dead leaves" model: Lee, Mumford, Huang, 2001, Occlusion models for natural images).
Here the objects are the areas where a smooth random field exceeds a level, the later ones in front. Blurred they are
Style_A; with edges kept and overshooting they are Style_B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from fwi_lightning.geology.layers import FASTEST, OPENFWI_DEPTH, SLOWEST

BACKGROUND = (1700.0, 3900.0)
"""Mean velocity of the background at the first and the last row, m/s."""

_BORDER = 24  # cells a field is drawn wider than the map, so that opposite edges know nothing of each other


def style_a(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw a map with smooth blobs and bands of 5 to 15 cells.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).

    Returns:
        (depth, width) float64, m/s.
    """
    image = gaussian_filter(
        _leaves(rng, shape, count=8, sizes=(4.0, 9.0)), rng.uniform(1.8, 2.6), mode="nearest"
    )
    return _over_background(rng, image, strength=rng.uniform(110.0, 260.0))


def style_b(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw a map with the same blobs and bands, but sharp edges ringed by a bright and a dark line 1 to 3 cells wide.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).

    Returns:
        (depth, width) float64, m/s.
    """
    leaves = _leaves(rng, shape, count=10, sizes=(3.0, 7.0))
    sharp = gaussian_filter(leaves, rng.uniform(0.5, 0.8), mode="nearest")
    rings = sharp - gaussian_filter(leaves, rng.uniform(1.6, 2.4), mode="nearest")
    return _over_background(rng, sharp + rng.uniform(0.6, 1.4) * rings, strength=rng.uniform(110.0, 240.0))


def _over_background(
    rng: np.random.Generator, image: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """Lay an image, scaled to a standard deviation of `strength` m/s, over a background that grows with depth."""
    depth = image.shape[0]
    top, bottom = BACKGROUND + rng.normal(0.0, 120.0, 2)
    fraction = np.linspace(0.0, 1.0, depth)[:, None]
    background = top + (bottom - top) * fraction
    texture = (image - image.mean()) / (image.std() + 1e-9)
    return np.clip(background + strength * texture, SLOWEST, FASTEST)


def _leaves(
    rng: np.random.Generator, shape: tuple[int, int], count: int, sizes: tuple[float, float]
) -> NDArray[np.float64]:
    """Draw objects in front of each other: `count` of them, each of its own size, stretch, brightness and shading."""
    fields = _fields(rng, shape, count, sizes)
    brightness = rng.normal(0.0, 1.0, count)
    levels = rng.uniform(0.2, 1.2, count)
    image = fields[0]
    for field, value, level in zip(fields[1:], brightness[1:], levels[1:], strict=True):
        image = np.where(field > level, value + 0.4 * (field - level), image)
    return image


def _fields(
    rng: np.random.Generator, shape: tuple[int, int], count: int, sizes: tuple[float, float]
) -> NDArray[np.float64]:
    """Draw smooth Gaussian random fields, (count, depth, width), mean 0 and variance 1.

    Each has a squared-exponential covariance of its own: lengths in `sizes` (cells), drawn out up to three times in
    one direction, mostly along the bedding.
    """
    depth, width = (fft.next_fast_len(side + _BORDER, real=True) for side in shape)
    length = rng.uniform(*sizes, count)
    stretch = np.exp(rng.uniform(0.0, np.log(3.0), count))
    angle = rng.normal(0.0, 0.6, count)
    kz, kx = 2 * np.pi * np.fft.fftfreq(depth)[:, None], 2 * np.pi * np.fft.rfftfreq(width)[None, :]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along, across = kx * cos + kz * sin, kz * cos - kx * sin
    long, short = (length * np.sqrt(stretch))[:, None, None], (length / np.sqrt(stretch))[:, None, None]
    transfer = np.exp(-((along * long) ** 2 + (across * short) ** 2) / 4)  # square root of the spectrum
    # single precision: half the time, and far more digits than a velocity needs
    noise = fft.rfft2(rng.standard_normal((count, depth, width), dtype=np.float32))
    fields = fft.irfft2(noise * transfer.astype(np.float32), s=(depth, width))[:, : shape[0], : shape[1]]
    return fields / fields.std(axis=(1, 2), keepdims=True)
