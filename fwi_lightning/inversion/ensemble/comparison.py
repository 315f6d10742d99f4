"""Methods against each other in nested folds: nothing is fitted on what it is scored on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_lightning.data.progress import Progress
from fwi_lightning.inversion.ensemble.blender import FAMILY, METHODS, PIXEL, SAMPLE, STATIC, Blender
from fwi_lightning.inversion.ensemble.fitting import Samples, Settings, fit, fold_rows, parts_of
from fwi_lightning.survey import Survey
from fwi_lightning.training.metrics import SCORES, score_samples

BATCH = 64
"""Samples blended at a time."""


@dataclass
class Comparison:
    """Scores of every method on samples that it was not fitted on.

    Attributes:
        scores: Method -> score -> (samples,).
        members: Score -> (members, samples): each member's own.
        weights: (folds, members): static weights found in each nested fold.
        predicted_ssim: (samples,), of the map of the method that static weights give.
        predicted_member_ssim: (members, samples).
        expected_mae: (samples,) in m/s, of the same map.
        family: (samples,) int64, predicted.
        ablation: Block left out -> (samples,) MAE of the weights per sample without it.
        gates: Method -> (members, samples), mean weights that a meta-learner gave.
    """

    scores: dict[str, dict[str, NDArray[np.float64]]]
    members: dict[str, NDArray[np.float64]]
    weights: NDArray[np.float64]
    predicted_ssim: NDArray[np.float64]
    predicted_member_ssim: NDArray[np.float64]
    expected_mae: NDArray[np.float64]
    family: NDArray[np.int64]
    ablation: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    gates: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def mae(self, method: str) -> float:
        """Mean over the samples, m/s."""
        return float(self.scores[method]["mae"].mean())


def methods_of(members: int, meta: Collection[str]) -> tuple[str, ...]:
    """The methods that can be compared: of a single member only itself."""
    if members == 1:
        return (STATIC,)
    return tuple(name for name in METHODS if name not in (SAMPLE, PIXEL) or name in meta)


def compare(
    samples: Samples, survey: Survey, families: int, settings: Settings, ablation: Collection[str] = ()
) -> Comparison:
    """Fit outside every nested fold and score inside it.

    Args:
        samples: All samples, with their folds.
        survey: The survey.
        families: Number of families.
        settings: How to fit.
        ablation: Blocks of features to leave out, one at a time, of the weights per sample. Default none.
    """
    members, count = samples.inputs.velocity.shape[:2]
    methods = methods_of(members, settings.methods)
    found = Comparison(
        {name: {score: np.zeros(count) for score in SCORES} for name in methods},
        {score: np.zeros((members, count)) for score in SCORES},
        np.zeros((len(samples.fold.unique()), members)),
        np.zeros(count),
        np.zeros((members, count)),
        np.zeros(count),
        np.zeros(count, np.int64),
        {name: np.zeros(count) for name in ablation},
        {name: np.zeros((members, count)) for name in settings.methods if members > 1},
    )
    with Progress("nested folds", 0, count) as progress:
        for number in samples.fold.unique().tolist():
            outside, inside = fold_rows(samples.fold, number)
            known = samples.rows(outside)
            blender, meta = fit(known, survey, families, settings)
            found.weights[number] = blender.weights.numpy()
            for rows in parts_of(inside.tolist(), BATCH):
                _score(found, blender, samples, rows, methods)
            for block in ablation:
                if meta is None:
                    break
                meta.fit_gate((block,))
                for rows in parts_of(inside.tolist(), BATCH):
                    found.ablation[block][rows.numpy()] = _errors(blender, samples.rows(rows))
            progress.advance(len(inside))
    return found


@torch.no_grad()
def _errors(blender: Blender, samples: Samples) -> NDArray[np.float64]:
    """MAE of the weights per sample, (samples,)."""
    velocity = blender(samples.inputs, SAMPLE, samples.features).velocity
    return (velocity - samples.truth).abs().mean(dim=(1, 2)).double().numpy()


@torch.no_grad()
def _score(found: Comparison, blender: Blender, samples: Samples, rows: Tensor, methods: Sequence[str]) -> None:
    some, places = samples.rows(rows), rows.numpy()
    for number, velocity in enumerate(some.inputs.velocity):
        _note({name: values[number] for name, values in found.members.items()}, velocity, some.truth, places)
    for method in methods:
        blend = blender(some.inputs, method, some.features)
        _note(found.scores[method], blend.velocity, some.truth, places)
        if method in found.gates:
            found.gates[method][:, places] = blend.weights.mean(dim=(2, 3)).numpy()
        if method == STATIC:
            found.predicted_ssim[places] = blend.ssim.numpy()
            found.predicted_member_ssim[:, places] = blend.member_ssim.numpy()
            found.expected_mae[places] = blend.scale.mean(dim=(1, 2)).numpy()
            found.family[places] = blend.family.argmax(dim=1).numpy()


def _note(into: Mapping[str, NDArray[np.float64]], velocity: Tensor, truth: Tensor, places: NDArray[np.int64]) -> None:
    for name, values in score_samples(velocity[:, None], truth[:, None]).items():
        into[name][places] = values.numpy()


def choose(found: Comparison) -> str:
    """The method to keep: a more complicated one only if it scored lower in the nested folds by more than chance.

    Args:
        found: The comparison.

    Returns:
        Static weights, or weights per family, per sample or per cell where their MAE is lower than that of what would
        be kept of the simpler ones, by more than a standard error of the mean difference.
    """
    kept = STATIC
    for method in (FAMILY, SAMPLE, PIXEL):
        if method in found.scores:
            gain = found.scores[kept]["mae"] - found.scores[method]["mae"]
            if gain.mean() > gain.std() / np.sqrt(len(gain)):
                kept = method
    return kept
