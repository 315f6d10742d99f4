"""A window of receivers: what a shorter spread would have recorded over the same ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.data.augment.base import Augmentation, check_probability, check_range
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

PADDINGS = ("mirror", "zero")


class Crop(Augmentation):
    """Keeps the traces of a window of receivers; the others are filled up, and the map is left whole.

    Physical in so far as the traces that are kept are the recorded ones: receivers do not disturb each other, so a
    shorter spread records the same. What stands in the other traces is no record. To crop the ground itself is
    another thing, since waves come back from what was cut away: `Physics` stretches a window of the map to the whole
    and has the gathers simulated again.

    Args:
        survey: The survey of the gathers.
        probability: Share of the samples. Default 0.5.
        width: Share of the receivers that are kept, drawn uniformly. Default (0.6, 1).
        padding: What stands in the other traces: "mirror", the window's own traces reflected at its edges, as often as
            it takes; or "zero". Default "mirror".

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        survey: Survey,
        probability: float = 0.5,
        width: Sequence[float] = (0.6, 1.0),
        padding: str = "mirror",
    ) -> None:
        super().__init__(survey)
        self.probability = check_probability("probability", probability)
        self.width = check_range("width", width, 1e-3, 1)
        if padding not in PADDINGS:
            raise UserError(f"padding must be {' or '.join(PADDINGS)}, got {padding!r}.")
        self.padding = padding

    def corrupt(self, gathers: Tensor, seed: int) -> None:
        """Crop the gathers of a sample, (shots, time, receivers), in place."""
        chance = np.random.default_rng(seed)
        if chance.random() >= self.probability:
            return
        receivers = gathers.shape[-1]
        width = max(1, round(chance.uniform(*self.width) * receivers))
        first = int(chance.integers(receivers - width + 1))
        if self.padding == "zero":
            gathers[..., :first] = 0
            gathers[..., first + width :] = 0
        else:
            places = torch.as_tensor(mirrored(receivers, first, width), device=gathers.device)
            gathers.copy_(gathers[..., places])


def mirrored(length: int, first: int, width: int) -> np.ndarray:
    """For each of `length` places that place of a window whose mirror image it is, edges not repeated.

    Args:
        length: Number of places.
        first: First place of the window.
        width: Its length.
    """
    if width == 1:
        return np.full(length, first)
    folded = np.abs((np.arange(length) - first + width - 1) % (2 * width - 2) - (width - 1))
    return first + folded
