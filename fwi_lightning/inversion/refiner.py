"""Apply a learned refiner: correct maps by what the simulator says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.starts import look_at
from fwi_lightning.inversion.state import State
from fwi_lightning.inversion.steps import Step, check_bounds
from fwi_lightning.models.refiner import Refiner
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_refiner


@dataclass(frozen=True)
class Corrected:
    """What a refiner has made of maps.

    Attributes:
        velocity: (batch, 1, depth, width) in m/s.
        misfit: (batch,) relative rms residual of these maps; see `relative_rms`.
        start_misfit: (batch,) that of the maps before.
        accepted: (batch,) whole number of passes that were kept.
    """

    velocity: Tensor
    misfit: Tensor
    start_misfit: Tensor
    accepted: Tensor


@torch.no_grad()
def apply_refiner(
    gathers: Tensor,
    velocity: Tensor,
    refiner: Refiner,
    passes: int = 1,
    must_fit: bool = True,
    bounds: tuple[float, float] = (1500.0, 4500.0),
) -> Corrected:
    """Correct maps once or several times, each time by what is left of the record.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width) in m/s, of the network that the refiner was trained behind.
        refiner: The refiner.
        passes: Corrections, one after the other. Default 1: further ones see maps that it was not trained on.
        must_fit: Whether a correction is kept only for the samples whose misfit it lowers. Default True.
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).

    Returns:
        The maps and what became of the misfit.

    Raises:
        UserError: If `passes` is below 1, or the gathers are not of the refiner's survey.
    """
    if passes < 1:
        raise UserError(f"inference.refiner.passes must be at least 1, got {passes}.")
    refiner.check(gathers)
    survey, device = refiner.survey, refiner.gradient_scale.device
    best = velocity.clamp(*bounds)
    accepted = torch.zeros(len(gathers), dtype=torch.long)
    rows = torch.arange(len(gathers))
    misfit = start_misfit = torch.zeros(len(gathers), dtype=torch.float64)
    for number in range(passes):
        record, gradient = look_at(gathers[rows], best[rows], survey)
        if number == 0:
            misfit = relative_rms(gathers, record)
            start_misfit = misfit.clone()
        residual = (gathers[rows] - record)[..., :: refiner.step, :]
        inputs = (gathers[rows], best[rows], residual, gradient)
        tried = refiner.correct(*(value.to(device) for value in inputs)).velocity.cpu().clamp(*bounds)
        found = relative_rms(gathers[rows], simulate(tried[:, 0], survey))
        kept = found < misfit[rows] if must_fit else torch.ones_like(found, dtype=torch.bool)
        rows = rows[kept]
        best[rows], misfit[rows] = tried[kept], found[kept]
        accepted[rows] += 1
        if not len(rows):
            break
    return Corrected(best, misfit, start_misfit, accepted)


class LearnedRefiner(Step):
    """Corrects the maps by one or several refiners, one after the other; see `apply_refiner`.

    Args:
        ckpt: Checkpoint of `python -m fwi_lightning refiner`, or several, in the order in which they were trained.
        passes: Corrections by each of them. Default 1.
        must_fit: Whether a correction is kept only for the samples whose misfit it lowers. Default True.
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).

    Raises:
        UserError: If a file is no refiner, or a setting is out of range.
    """

    def __init__(
        self,
        ckpt: str | Sequence[str],
        passes: int = 1,
        must_fit: bool = True,
        bounds: Sequence[float] = (1500.0, 4500.0),
    ) -> None:
        if passes < 1:
            raise UserError(f"inference.refiner.passes must be at least 1, got {passes}.")
        files = [ckpt] if isinstance(ckpt, str) else list(ckpt)
        if not files:
            raise UserError("inference.refiner.ckpt names no file: give a refiner, or set inference.refiner=null.")
        self.files, self.refiners = files, [load_refiner(file) for file in files]
        self.passes, self.must_fit, self.bounds = passes, must_fit, check_bounds("refiner", bounds)

    def run(self, state: State, part: int) -> None:
        """Correct the batch; quality.csv learns how many corrections were kept."""
        kept = torch.zeros(len(state), dtype=torch.long)
        for file, refiner in zip(self.files, self.refiners, strict=True):
            check_survey(refiner, state.survey, file)
            found = apply_refiner(state.gathers, state.velocity, refiner, self.passes, self.must_fit, self.bounds)
            state.improve(found.velocity, found.misfit)
            kept += found.accepted
        state.columns["refiner_corrections"] = kept.tolist()


def check_survey(refiner: Refiner, survey: Survey, file: str) -> None:
    """Refuse a refiner of another survey.

    Raises:
        UserError: If its survey is another one.
    """
    own, other = refiner.survey.to_dict(), survey.to_dict()
    for name, value in own.items():
        if value != other[name]:
            raise UserError(
                f"{file} was trained for another survey ({name}={value}, here {other[name]}): train a refiner for this "
                "one with python -m fwi_lightning refiner."
            )
