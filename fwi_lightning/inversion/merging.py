"""Areas of a layered map: cells that are nearly alike become one unknown."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fwi_lightning.inversion.newton import Areas

STEP = (1.0, 10.0)
"""m/s: neighbours that differ by less belong together. The less, the better the record is explained..."""

COARSE = 1e-3
"""... from this relative rms residual on."""

LEAST = 20
"""Cells of an area below which its cells remain on their own."""


def merge(velocity: Tensor, held: Tensor, misfit: float) -> Areas:
    """Areas of cells that chains of nearly equal neighbours connect; those next to another area remain on their own.

    What a record says of a weakly lit layer it says of the layer as a whole: with one unknown for it, its value is
    that of its well-lit part. Where exactly the layer ends is for the cells at its edge to tell.

    Args:
        velocity: (depth, width) in m/s.
        held: (depth, width), cells whose velocity is known.
        misfit: Relative rms residual of the map.

    Returns:
        The areas; cells whose velocity is known lend it to theirs.
    """
    shape, step = velocity.shape, max(STEP[0], STEP[1] * min(1.0, misfit / COARSE))
    cells = np.arange(velocity.numel()).reshape(shape)
    pairs = [
        np.stack([here[alike], there[alike]])
        for here, there, alike in (
            (cells[:-1], cells[1:], (velocity.diff(dim=0).abs() < step).numpy()),
            (cells[:, :-1], cells[:, 1:], (velocity.diff(dim=1).abs() < step).numpy()),
        )
    ]
    links = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(links.shape[1]), links), shape=(cells.size, cells.size))
    count, label = connected_components(graph, directed=False)
    label = label.reshape(shape)
    inside = minimum_filter(label, 3) == -minimum_filter(-label, 3)
    inside &= np.bincount(label[inside], minlength=count)[label] >= LEAST
    areas = np.where(inside, label, count + cells)
    return Areas(torch.from_numpy(np.unique(areas, return_inverse=True)[1].reshape(shape)), held)
