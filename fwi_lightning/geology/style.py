"""The Style families: the texture of a photograph laid over a background that grows with depth.

Nobody has published the images. A photograph is, to first order, objects in front of each other, each with
a brightness and a soft shading of its own (the "dead leaves" model: Lee, Mumford and Huang, 2001, Occlusion
models for natural images). Here an object is the area in which a smooth random field exceeds a level, the
later ones in front. Blurred they are Style_A; with their edges kept and drawn over they are Style_B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from fwi_lightning.geology.layers import FASTEST, SLOWEST

_SURFACE = (1500.0, 1650.0)  # background in the first row, m/s
_BASE = (4050.0, 4400.0)  # background in the last row; with the image mixed in, maps grow from 1800 to 3900 m/s
_WEIGHT = (0.12, 0.3)  # share of the image in the mixture
_OBJECTS = 6
_SHADING = 0.5  # change of brightness across an object, per unit of its field
_LAST_WAVE = 4.5  # wave number times length beyond which a squared exponential has nothing left
_BORDER = 20  # cells a field is drawn wider than the map, so that opposite edges know little of each other


def style_a(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw a map with smooth blobs and bands of 5 to 15 cells.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).

    Returns:
        (depth, width) float64, m/s.
    """
    leaves = _leaves(rng, shape, sizes=(2.5, 5.5), outline=0.0)
    # A blur of s cells gives a squared exponential of s * sqrt(2), 3.5 to 4 cells; recorded maps fit 3.48, and
    # the contrast below shortens it
    image = gaussian_filter(leaves, rng.uniform(2.5, 2.8), mode="reflect")
    return _mix(rng, image, contrast=rng.uniform(0.6, 0.9))


def style_b(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw a map with such blobs and bands, their edges sharp and ringed by lines 1 to 3 cells wide.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).

    Returns:
        (depth, width) float64, m/s.
    """
    leaves = _leaves(rng, shape, sizes=(4.5, 11.0), outline=rng.uniform(0.5, 1.2))
    sharp = gaussian_filter(leaves, rng.uniform(0.35, 0.6), mode="reflect")
    # what an edge-keeping filter leaves behind: a bright and a dark line along either side of each edge
    halo = sharp - gaussian_filter(leaves, rng.uniform(1.3, 2.0), mode="reflect")
    return _mix(rng, sharp + rng.uniform(0.3, 0.9) * halo, contrast=rng.uniform(0.6, 1.1))


def _mix(rng: np.random.Generator, image: NDArray[np.float64], contrast: float) -> NDArray[np.float64]:
    """Mix an image, stretched to the full range of velocities, into a background growing with depth.

    Both lie within the bounds, so their mean does too, without clipping: a fit to recorded Style_A maps finds
    no trace of clipping either (noise of 0.1 m/s).
    """
    background = np.linspace(rng.uniform(*_SURFACE), rng.uniform(*_BASE), image.shape[0])[:, None]
    # A photograph uses its range of brightness evenly, with more dark than bright areas
    even = np.tanh(contrast * (image - image.mean()) / image.std())
    darkest, brightest = even.min(), even.max()
    style = ((even - darkest) / (brightest - darkest)) ** rng.uniform(1.0, 1.8)
    weight = rng.uniform(*_WEIGHT)
    return (1 - weight) * background + weight * (SLOWEST + (FASTEST - SLOWEST) * style)


def _leaves(
    rng: np.random.Generator, shape: tuple[int, int], sizes: tuple[float, float], outline: float
) -> NDArray[np.float64]:
    """Draw objects in front of each other, each of its own size, stretch, brightness, shading and outline.

    Args:
        rng: Source of chance.
        shape: Cells of the map, (depth, width).
        sizes: Least and greatest correlation length of the fields whose level lines bound the objects, cells.
        outline: Typical strength of the line along an object's edge, as a share of the objects' contrast.

    Returns:
        (depth, width) float64, of mean about 0 and contrast about 1.
    """
    lengths = np.exp(rng.uniform(np.log(sizes[0]), np.log(sizes[1]), _OBJECTS))
    lengths[::-1].sort()  # small objects in front: the large ones would hide them
    levels = rng.uniform(0.0, 0.9, _OBJECTS)
    brightness = rng.normal(0.0, 1.0, _OBJECTS)
    lines = outline * rng.normal(0.0, 1.0, _OBJECTS)
    image = _field(rng, shape, sizes[1])
    for length, level, value, line in zip(lengths, levels, brightness, lines, strict=True):
        above = _field(rng, shape, length) - level
        image = np.where(above > 0, value + _SHADING * above, image)
        if outline:
            # a field of length l climbs by about 1/l a cell: this is a line 1 to 3 cells wide
            image += line * np.exp(-((above * length) ** 2))
    return image


def _field(rng: np.random.Generator, shape: tuple[int, int], length: float) -> NDArray[np.float64]:
    """Draw a smooth Gaussian random field, (depth, width), of mean about 0 and variance 1.

    Its covariance is a squared exponential of the given length (cells), drawn out up to three times in one
    direction, mostly along the bedding.
    """
    depth, width = (fft.next_fast_len(side + _BORDER, real=True) for side in shape)
    stretch, angle = np.sqrt(np.exp(rng.uniform(0.0, np.log(3.0)))), rng.normal(0.0, 0.6)
    # only the waves that such a field has: drawing the noise is what takes the time
    shortest = _LAST_WAVE * stretch / length / (2 * np.pi)
    rows = min(int(np.ceil(shortest * depth)), (depth - 1) // 2)
    columns = min(int(np.ceil(shortest * width)), (width - 1) // 2)
    kz = 2 * np.pi / depth * np.arange(-rows, rows + 1)[:, None]
    kx = 2 * np.pi / width * np.arange(columns + 1)[None, :]
    along = (kx * np.cos(angle) + kz * np.sin(angle)) * (length * stretch)
    across = (kz * np.cos(angle) - kx * np.sin(angle)) * (length / stretch)
    noise = rng.standard_normal((2 * rows + 1, columns + 1, 2)).view(np.complex128)[..., 0]
    waves = np.zeros((depth, width // 2 + 1), np.complex128)
    # rows of the transform count 0, 1, .. and then the negative ones from the end
    waves[np.arange(-rows, rows + 1), : columns + 1] = noise * np.exp(-(along**2 + across**2) / 4)
    field = fft.irfft2(waves, s=(depth, width))[: shape[0], : shape[1]]
    return field / field.std()
