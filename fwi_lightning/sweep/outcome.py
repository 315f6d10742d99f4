"""How a trial ended, from what its job returned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hydra.core.utils import JobReturn, JobStatus
from optuna import TrialPruned
from optuna.trial import TrialState

from fwi_lightning.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        score: Its score; None unless complete. Default None.
        error: Why it failed. Default "".
    """

    state: TrialState
    score: float | None = None
    error: str = ""


def outcome_of(result: JobReturn) -> tuple[Outcome, BaseException | None]:
    """How the job of a trial ended, and its exception if it had one.

    Args:
        result: What the launcher brought back.
    """
    value = result._return_value  # the property prints and raises
    if result.status is JobStatus.COMPLETED:
        if isinstance(value, int | float) and math.isfinite(value):
            return Outcome(TrialState.COMPLETE, float(value)), None
        return Outcome(TrialState.FAIL, error=f"its score is {value}, which is no number"), None
    if isinstance(value, TrialPruned):
        return Outcome(TrialState.PRUNED), None
    return failure(value), value


def failure(error: BaseException) -> Outcome:
    """The outcome of a job that raised this."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return Outcome(TrialState.FAIL, error=f"{kind}{error}".strip())
