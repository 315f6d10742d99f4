"""What a prediction is worth, judged without labels: by simulating it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import spearmanr
from torch import Tensor

from fwi_lightning.models import Answer
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import fingerprint, source_velocity
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

POOR_FIT = 0.5
"""Misfit above which a prediction is flagged: it explains less than three quarters of the record's energy."""

USUAL = (1400.0, 4600.0)
"""m/s: range of velocities that OpenFWI's labels, 1500 to 4500, leave with some room."""

INCONSISTENT = 0.5
"""Inconsistency of an invertible model above which a prediction is flagged: the map leads back to less than three
quarters of the energy of the features that it was made of."""

OFF_AT_SHOTS = 50.0
"""m/s: median error at the shots, where clean gathers give the velocity away, above which a prediction is flagged."""

LEAST_RANKED = 3
"""Fewest samples of which a rank correlation says anything."""


def misfit(gathers: Tensor, velocity: Tensor, survey: Survey) -> Tensor:
    """Relative rms difference between recorded gathers and those that the velocity would give.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width) in m/s.
        survey: The survey.

    Returns:
        (batch,): 0 for a perfect map; 1 is what silence would score. The last time sample is left out: some families
        store zeros there.
    """
    record = simulate(velocity[:, 0], survey)
    return relative_rms(gathers, record[:, :, :: survey.thinning_of(gathers.shape[2])])


def inspect_prediction(
    gathers: Tensor,
    velocity: Tensor,
    survey: Survey,
    fits: Sequence[float] | None,
    uses_source_velocity: bool = False,
    inconsistency: Tensor | None = None,
) -> list[dict[str, Any]]:
    """The row of quality.csv of each sample of a batch, less its name.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        velocity: (batch, 1, depth, width), predicted, in m/s.
        survey: The survey.
        fits: The misfit of each prediction, None if they were not simulated.
        uses_source_velocity: Whether the model relies on the velocity at the shots. Default False.
        inconsistency: `Answer.inconsistency`, (batch,). Default: the model cannot be run backwards.

    Returns:
        Dicts of misfit (None if not simulated) and flags, a list of words joined by ";": "silent" (gathers of zeros,
        which get no flags of their shots), "other survey" (shots stand elsewhere), "unusual velocity" (outside
        `USUAL`), "source velocity" (off by more than `OFF_AT_SHOTS` where the gathers tell it), "source velocity
        unavailable" (they tell it at no shot, and the model relies on it), "inconsistent" (above `INCONSISTENT`), "poor
        fit" (misfit above `POOR_FIT`).
    """
    silent = gathers.abs().amax(dim=(1, 2, 3)) == 0
    low, high = velocity.amin(dim=(1, 2, 3)), velocity.amax(dim=(1, 2, 3))
    known = source_velocity(gathers, survey)
    error = (velocity[:, 0, survey.shot_row, list(survey.shot_columns)] - known).abs().nanmedian(dim=1).values
    flagged = {
        "silent": silent,
        "other survey": fingerprint(gathers, survey).other_survey,
        "unusual velocity": (low < USUAL[0]) | (high > USUAL[1]),
        "source velocity": error > OFF_AT_SHOTS,
        "source velocity unavailable": known.isnan().all(dim=1) & ~silent & uses_source_velocity,
    }
    if inconsistency is not None:
        flagged["inconsistent"] = (inconsistency > INCONSISTENT) & ~silent
    rows = []
    for row in range(len(gathers)):
        flags = [name for name, samples in flagged.items() if samples[row]]
        fit = None if fits is None or silent[row] else fits[row]
        flags += ["poor fit"] * (fit is not None and fit > POOR_FIT)
        rows.append({"misfit": fit, "flags": ";".join(flags)})
    return rows


def judge_oneself(answer: Answer, families: Sequence[str]) -> list[dict[str, Any]]:
    """What a model says of its own predictions: the columns of quality.csv that its heads give.

    Args:
        answer: Of a batch, on the CPU.
        families: Names of the families, in the order of `Answer.family`.

    Returns:
        A dict for each sample: expected_mae in m/s, the mean of `Answer.scale` over the cells, with an uncertainty
        head; expected_ssim, of an ensemble; family, the most probable one, and family_probability, with a family head;
        inconsistency, of an invertible model. {} without any of these.
    """
    columns: dict[str, list[Any]] = {}
    if answer.scale is not None:
        columns["expected_mae"] = answer.scale.mean(dim=(1, 2, 3)).tolist()
    if answer.ssim is not None:
        columns["expected_ssim"] = answer.ssim.tolist()
    if answer.family is not None:
        probability, number = answer.family.softmax(dim=1).max(dim=1)
        columns["family"] = [families[index] for index in number.tolist()]
        columns["family_probability"] = probability.tolist()
    if answer.inconsistency is not None:
        columns["inconsistency"] = answer.inconsistency.tolist()
    return [{name: values[row] for name, values in columns.items()} for row in range(len(answer.velocity))]


def rank_correlation(quality: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]) -> float | None:
    """Whether the samples that a model expects to get wrong are those that it gets wrong.

    Args:
        quality: Rows of quality.csv.
        scores: Rows of scores.csv.

    Returns:
        Spearman's rank correlation of the expected and the true MAE, -1..1. None without `expected_mae`, with fewer
        than `LEAST_RANKED` samples that have both, or where one of the two is the same for all.
    """
    expected = {(row["name"], row["index"]): row["expected_mae"] for row in quality if "expected_mae" in row}
    true = {(row["name"], row["index"]): row["mae"] for row in scores}
    pairs = [(expected[place], error) for place, error in true.items() if place in expected]
    if len(pairs) < LEAST_RANKED or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
