"""Fits everything in a `Blender` on out-of-fold samples: static weights, heads, meta-learner, calibration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional

from fwi_lightning.inversion.ensemble.blender import LEAST_ERROR, PIXEL, SAMPLE, STATIC, Blender
from fwi_lightning.inversion.ensemble.features import Features, Inputs, describe
from fwi_lightning.inversion.ensemble.learner import FeatureNet, cell_places, kept_columns, sample_columns, train
from fwi_lightning.inversion.ensemble.weights import SAMPLERS, Blends, search
from fwi_lightning.inversion.regression import fit_log_linear
from fwi_lightning.survey import Survey
from fwi_lightning.training.metrics import structural_similarity

BATCH = 256
"""Samples in a step of a network on features."""

CELLS = 256
"""Cells of each sample on which weights per sample are trained."""

MAPS, WINDOW = 12, 40
"""Samples, and rows and columns of each, in a step of the network on maps."""

LEAST_FAMILY = 8
"""Samples of a family from which it gets weights of its own."""


@dataclass(frozen=True)
class Samples:
    """Samples to fit on.

    Attributes:
        inputs: What the members say of them.
        truth: (samples, depth, width) in m/s.
        family: (samples,) int64.
        fold: (samples,) int64: the nested fold of each.
        features: Of the members' maps.
        ssim: (members, samples): true SSIM of each member's map.
    """

    inputs: Inputs
    truth: Tensor
    family: Tensor
    fold: Tensor
    features: Features
    ssim: Tensor

    def rows(self, places: Tensor) -> Samples:
        """Some of the samples."""
        return Samples(
            self.inputs.rows(places),
            self.truth[places],
            self.family[places],
            self.fold[places],
            self.features.rows(places),
            self.ssim[:, places],
        )


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        trials: Of each sampler in the search for weights.
        family_trials: The same for the weights of each family.
        samplers: Of `weights.SAMPLERS`.
        methods: Meta-learners to train, of `SAMPLE` and `PIXEL`.
        steps: Training steps of each network, at most.
        seed: Of all that is drawn.
    """

    trials: int = 200
    family_trials: int = 50
    samplers: tuple[str, ...] = SAMPLERS
    methods: tuple[str, ...] = (SAMPLE, PIXEL)
    steps: int = 400
    seed: int = 0


def true_ssim(velocity: Tensor, truth: Tensor) -> Tensor:
    """SSIM of (maps, samples, depth, width) against (samples, depth, width), (maps, samples)."""
    return torch.stack([structural_similarity(one[:, None], truth[:, None]).float() for one in velocity])


class Fitted(NamedTuple):
    """A blender, and what its meta-learner learned from; None of a single member."""

    blender: Blender
    meta: MetaRows | None


def fit(samples: Samples, survey: Survey, families: int, settings: Settings) -> Fitted:
    """A blender fitted on all of some samples.

    Within them the folds are used again: one of them tells when to stop a training, and the meta-learner reads
    predictions of SSIM by heads that were not trained on the fold predicted.

    Args:
        samples: The samples.
        survey: The survey.
        families: Number of families.
        settings: How to fit.
    """
    features = samples.features
    members = len(samples.inputs.velocity)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _fit(samples, Blender(members, families, survey, features.own_blocks, features.shared_blocks), settings)


def _fit(samples: Samples, blender: Blender, settings: Settings) -> Fitted:
    features, members = samples.features, blender.members
    blender.eval()
    _fit_weights(blender, samples, settings)
    learning, stopping = _inner(samples.fold)
    _fit_family(blender, features, samples, learning, stopping, settings)
    static = blender.combine(STATIC, samples.inputs.velocity, blender.weights[:, None, None, None])
    errors = _calibrate(blender, samples, static)
    quality = QualityRows(blender, features, describe(samples.inputs, blender.survey, static[None]), samples, static)
    ssim, blended_ssim = quality.cross_fit(samples.fold, settings)
    _expect(blender, errors, blended_ssim, (static - samples.truth).abs().mean(dim=(1, 2)))
    quality.fit(learning, stopping, settings)
    if members == 1:
        return Fitted(blender, None)
    probabilities = blender.family_net(sample_columns(features)).softmax(dim=1).detach()
    meta = MetaRows(blender, features, samples, ssim, probabilities, learning, stopping, settings)
    if SAMPLE in settings.methods:
        meta.fit_gate()
    if PIXEL in settings.methods:
        meta.fit_pixel_gate()
    return Fitted(blender, meta)


def _fit_weights(blender: Blender, samples: Samples, settings: Settings) -> None:
    velocity, truth = samples.inputs.velocity.numpy(), samples.truth.numpy()
    errors = [float(np.abs(one - truth).mean()) for one in velocity]
    blender.best.fill_(int(np.argmin(errors)))
    weights = search(Blends(velocity, truth, settings.seed), settings.trials, settings.samplers, settings.seed)
    own: dict[int, NDArray[np.float64]] = {}
    for family in np.unique(samples.family.numpy()).tolist():
        places = (samples.family == family).nonzero()[:, 0].numpy()
        if len(places) >= LEAST_FAMILY:
            blends = Blends(velocity[:, places], truth[places], settings.seed)
            own[family] = search(blends, settings.family_trials, settings.samplers, settings.seed)
    blender.take_weights(weights, own)


def _inner(fold: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows that tell when to stop: the lowest of the folds, if there are several."""
    found = fold.unique()
    stopping = (fold == found[0]).nonzero()[:, 0]
    return ((fold != found[0]).nonzero()[:, 0] if len(found) > 1 else stopping), stopping


def _fit_family(
    blender: Blender, features: Features, samples: Samples, learning: Tensor, stopping: Tensor, settings: Settings
) -> None:
    columns, net = sample_columns(features), blender.family_net
    net.standardise(columns[learning], torch.ones(columns.shape[1]))

    def loss(rows: Tensor) -> Tensor:
        return functional.cross_entropy(net(columns[rows]), samples.family[rows])

    train(
        net,
        lambda generator: loss(_draw(learning, BATCH, generator)),
        lambda: loss(stopping),
        settings.steps,
        settings.seed,
    )


def _calibrate(blender: Blender, samples: Samples, static: Tensor) -> Tensor:
    """Expected absolute error as a straight line in the spread of the members, by non-negative least squares.

    Returns:
        These errors, (samples, depth, width).
    """
    weights = blender.weights[:, None, None, None]
    spread = Blender.spread(samples.inputs.velocity, weights, static)
    picked = (slice(None), slice(None, None, 3), slice(None, None, 3))  # neighbouring cells say the same
    error = (static - samples.truth).abs()[picked].double().numpy().ravel()
    lines = np.stack([np.ones_like(error), spread[picked].double().numpy().ravel()], axis=1)
    blender.calibration.copy_(torch.from_numpy(nnls(lines, error)[0]))
    return blender.cell_errors(samples.inputs.velocity, weights, static)


def _expect(blender: Blender, errors: Tensor, ssim: Tensor, mae: Tensor) -> None:
    """The expected MAE of a sample as a power of what its cells are expected to have, and its predicted SSIM.

    Args:
        blender: Whose expectation it is.
        errors: As `Blender.cell_errors`.
        ssim: Of the weighted map, predicted by heads that did not see the sample, (samples,).
        mae: The true one, (samples,).
    """
    known = {"cells": errors.mean(dim=(1, 2)).clamp_min(LEAST_ERROR).log().double().numpy(), "ssim": ssim.numpy()}
    found = fit_log_linear(known, mae.double().numpy(), list(known))
    slopes = np.divide(found.slopes, found.spreads)
    offset = found.intercept - float(slopes @ found.centres)
    blender.expectation.copy_(torch.tensor([offset, *slopes.tolist()]))


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (min(count, len(rows)),), generator=generator)]


class QualityRows:
    """What the quality head learns from: the members' maps and the statically weighted one, with their true SSIM.

    Args:
        blender: Whose head it is.
        features: Of the members' maps.
        blended: Of the weighted map.
        samples: The samples.
        static: The weighted map, (samples, depth, width).
    """

    def __init__(
        self, blender: Blender, features: Features, blended: Features, samples: Samples, static: Tensor
    ) -> None:
        self.net = blender.quality
        self.columns = torch.cat(
            [blender.quality_columns(features), blender.quality_columns(blended, blended=True)]
        ).detach()
        self.truth = torch.cat([samples.ssim, true_ssim(static[None], samples.truth)])

    def fit(self, learning: Tensor, stopping: Tensor, settings: Settings) -> None:
        """Train the head anew."""
        net = self.net
        net.standardise(self.columns[:, learning], torch.ones(self.columns.shape[2]))
        for layer in net.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]
        with torch.no_grad():
            net.last.weight.zero_()
            net.last.bias.fill_(float(self.truth[:, learning].mean()))

        def loss(rows: Tensor) -> Tensor:
            return functional.mse_loss(net(self.columns[:, rows])[..., 0], self.truth[:, rows])

        train(
            net,
            lambda generator: loss(_draw(learning, BATCH, generator)),
            lambda: loss(stopping),
            settings.steps,
            settings.seed,
        )

    def cross_fit(self, fold: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """SSIM predicted by heads that did not see the fold, of the members' maps and of the weighted one.

        Returns:
            (members, samples) and (samples,).
        """
        found = fold.unique()
        predicted = torch.zeros(self.truth.shape)
        for one in found:
            held = (fold == one).nonzero()[:, 0]
            others = (fold != one).nonzero()[:, 0] if len(found) > 1 else held
            learning, stopping = (others[rows] for rows in _inner(fold[others]))
            self.fit(learning, stopping, settings)
            with torch.no_grad():
                predicted[:, held] = self.net(self.columns[:, held])[..., 0]
        return predicted[:-1], predicted[-1]


class MetaRows:
    """What the meta-learner learns from: the error of the weighted map itself.

    Args:
        blender: Whose gates they are; its static weights are where both begin.
        features: Of the members' maps.
        samples: The samples.
        ssim: (members, samples), predicted by heads that did not see them.
        probabilities: (samples, families).
        learning: Rows to learn from.
        stopping: Rows that tell when to stop.
        settings: How to fit.
    """

    def __init__(
        self,
        blender: Blender,
        features: Features,
        samples: Samples,
        ssim: Tensor,
        probabilities: Tensor,
        learning: Tensor,
        stopping: Tensor,
        settings: Settings,
    ) -> None:
        self.blender, self.samples, self.settings = blender, samples, settings
        self.learning, self.stopping = learning, stopping
        self.columns = blender.gate_columns(features, ssim, probabilities)
        self.context = blender.context(features, ssim, probabilities)

    def fit_gate(self, without: Collection[str] = ()) -> int:
        """Train the weights per sample anew.

        Args:
            without: Blocks of features not to look at. Default none.

        Returns:
            The step that was kept, 0 for the static weights.
        """
        blender, samples = self.blender, self.samples
        net = blender.gate = FeatureNet(self.columns.shape[2], 1)
        net.standardise(self.columns[:, self.learning], kept_columns(blender.gate_blocks(), without))
        generator = torch.Generator().manual_seed(self.settings.seed)
        cells = torch.randint(samples.truth[0].numel(), (len(samples.truth), CELLS), generator=generator)
        truth = samples.truth.flatten(1).gather(1, cells)
        velocity = torch.stack([one.flatten(1).gather(1, cells) for one in samples.inputs.velocity])

        def loss(rows: Tensor) -> Tensor:
            weights = blender.sample_weights(self.columns[:, rows])
            return ((weights[..., None] * velocity[:, rows]).sum(dim=0) - truth[rows]).abs().mean() / 100

        return train(
            net,
            lambda generator: loss(_draw(self.learning, BATCH, generator)),
            lambda: loss(self.stopping),
            self.settings.steps,
            self.settings.seed,
        )

    def fit_pixel_gate(self) -> int:
        """Train the weights per cell, on windows, half of them mirrored; the step that was kept."""
        blender, samples, net = self.blender, self.samples, self.blender.pixel_gate
        context = self.context
        net.context.standardise(context[self.learning], torch.ones(context.shape[1]))
        depth, width = samples.truth.shape[1:]
        place = cell_places(1, depth, width)

        def loss(rows: Tensor, down: slice, right: slice, mirrored: bool) -> Tensor:
            velocity, truth = samples.inputs.velocity[:, rows, down, right], samples.truth[rows, down, right]
            where = place[..., down, right].expand(len(rows), -1, -1, -1)
            if mirrored:
                velocity, truth, where = velocity.flip(-1), truth.flip(-1), where.flip(-1)
            weights = blender.cell_weights(velocity, context[rows], where)
            return ((weights * velocity).sum(dim=0) - truth).abs().mean() / 100

        def step(generator: torch.Generator) -> Tensor:
            rows = _draw(self.learning, MAPS, generator)
            high, wide = min(WINDOW, depth), min(WINDOW, width)
            top = int(torch.randint(depth - high + 1, (), generator=generator))
            left = int(torch.randint(width - wide + 1, (), generator=generator))
            mirrored = bool(torch.randint(2, (), generator=generator))
            return loss(rows, slice(top, top + high), slice(left, left + wide), mirrored)

        whole = slice(None)
        chosen = self.stopping[torch.linspace(0, len(self.stopping) - 1, min(64, len(self.stopping))).long()]
        return train(
            net,
            step,
            lambda: loss(chosen, whole, whole, False),
            2 * self.settings.steps,
            self.settings.seed,
            rate=2e-3,
            look=40,
        )


def fold_rows(fold: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Rows outside and inside a nested fold."""
    return (fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0]


def parts_of(rows: Sequence[int], size: int) -> list[Tensor]:
    """Rows in parts of a size, to bound memory."""
    return list(torch.as_tensor(rows).split(size))
