"""Maps to begin a refinement with where no network can be asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

TOP = 1500.0
"""m/s at the shots, where the record does not tell."""

BOTTOMS = (2500.0, 3000.0, 3500.0, 4000.0, 4500.0)
"""m/s at the lower edge that are tried."""

LEAST = 0.9
"""Of the velocity at the shots: what is above them, where the line goes on upwards, is not slower."""


@torch.no_grad()
def gradient_start(gathers: Tensor, survey: Survey, bottoms: Sequence[float] = BOTTOMS) -> Tensor:
    """A velocity that grows in proportion to depth, the same in every column: what the record says without inversion.

    In the row of the shots it is the median of what clean gathers say there, else `TOP`; at the lower edge that of
    `bottoms` whose simulated record is nearest to the recorded one.

    Args:
        gathers: (shots, time, receivers) as recorded.
        survey: The survey.
        bottoms: m/s. Default `BOTTOMS`.

    Returns:
        (1, depth, width) in m/s.
    """
    known = source_velocity(gathers[None], survey)[0].nanmedian()
    top = float(known) if known.isfinite() else TOP
    below = survey.grid[0] - 1 - survey.shot_row
    rows = ((torch.arange(survey.grid[0]) - survey.shot_row) / below)[:, None]
    maps = [
        (top + (bottom - top) * rows).clamp_min(LEAST * top).expand(survey.grid).contiguous()
        for bottom in bottoms
        if bottom > top
    ]
    if not maps:
        return torch.full((1, *survey.grid), top)
    # One after the other: a wide line's record is large.
    misfits = [float(relative_rms(gathers[None], simulate(velocity, survey)[None])) for velocity in maps]
    return maps[misfits.index(min(misfits))][None]
