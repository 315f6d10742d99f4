"""Fits a calibration to predictions whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.calibration import Expectation, Fits, cell_features, expected_mae
from fwi_lightning.inversion.regression import Features, LogLinear, fit_log_linear

LEAST = 20
"""Fewest samples that a calibration can be fitted to."""

CELLS = 100
"""Cells of each sample that the fit of the uncertainty looks at, drawn evenly."""

COVERAGE = 0.68
"""Share of the cells' errors that lie within the uncertainty: as of one standard deviation of a Gaussian."""

BEYOND = 1.25
"""Times the largest that validation saw, from which an answer counts as unlike it."""

OPTIONAL = {"mae": (("misfit", "misfit_network"), ("spread",)), "cells": (("illumination",), ("spread",))}
"""Features that are known only if the maps were simulated, or augmented; there is a fit with and without them."""


@dataclass
class Observations:
    """Predictions after one step of the chain, with their errors; filled batch by batch.

    Args:
        seed: Of the cells that are looked at. Default 0.
    """

    seed: int = 0
    _features: list[dict[str, NDArray[np.floating]]] = field(default_factory=list)
    _errors: list[NDArray[np.float64]] = field(default_factory=list)
    _cells: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    _cell_errors: list[NDArray[np.float64]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self._errors))

    def add(
        self,
        velocity: Tensor,
        truth: Tensor,
        features: Features,
        scale: Tensor | None = None,
        spread: Tensor | None = None,
        illumination: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            velocity: (batch, 1, depth, width) in m/s.
            truth: The same shape, m/s.
            features: As `sample_features`.
            scale: As `cell_features`, and so are the others.
            spread: See there.
            illumination: See there.
        """
        error = (velocity - truth).double().abs()
        rng = np.random.default_rng((self.seed, len(self)))
        places = rng.integers(velocity[0].numel(), size=(len(velocity), CELLS))
        self._features.append(dict(features))
        self._errors.append(error.mean(dim=(1, 2, 3)).numpy())
        cells = cell_features(velocity, self._errors[-1], scale, spread, illumination)
        self._cells.append({name: _take(values, places) for name, values in cells.items() if name != "expected"})
        self._cell_errors.append(_take(error.numpy(), places))

    def fit(self) -> Expectation:
        """The expectation after this step.

        Raises:
            UserError: If there are fewer than `LEAST` samples.
        """
        if len(self) < LEAST:
            raise UserError(f"a calibration needs at least {LEAST} samples with their truth, got {len(self)}.")
        features, cells = _join(self._features), _join(self._cells)
        errors, cell_errors = np.concatenate(self._errors), np.concatenate(self._cell_errors)
        halves = np.arange(len(errors)) % 2 == 0
        expected, within = np.empty(len(errors)), np.empty(cell_errors.shape, dtype=bool)
        for half in (halves, ~halves):
            other = ~half
            part = _fit(_rows(features, half), errors[half], _rows(cells, half), cell_errors[half])
            expected[other] = expected_mae(part, _rows(features, other))
            given = _rows(cells, other) | {"expected": _wide(expected[other], CELLS)}
            within[other] = cell_errors[other] <= part.factors[0] * part.cells.fits[0].predict(given)
        whole = _fit(features, errors, cells, cell_errors)
        facts = vars(whole) | {
            "rank_correlation": float(spearmanr(expected, errors).statistic),
            "coverage": float(within.mean()),
        }
        return Expectation(**facts)


def _fit(
    features: Features, errors: NDArray[np.float64], cells: Features, cell_errors: NDArray[np.float64]
) -> Expectation:
    """The fits to some samples, without a word on how good they are."""
    mae = Fits(tuple(fit_log_linear(features, errors, names) for names in _sets(features, OPTIONAL["mae"])))
    expected = mae.fits[0].predict(features)
    # The sample's share is what the first fit expects, not what it is: that is what there will be.
    flat = {name: values.ravel() for name, values in cells.items()} | {
        "expected": _wide(expected, cell_errors.shape[1]).ravel()
    }
    fits: list[LogLinear] = []
    factors: list[float] = []
    for names in _sets(flat, OPTIONAL["cells"]):
        fits.append(fit_log_linear(flat, cell_errors.ravel(), names))
        factors.append(float(np.quantile(cell_errors.ravel() / fits[-1].predict(flat), COVERAGE)))
    misfits = np.exp(features["misfit"]) if "misfit" in features else np.array([np.inf])
    return Expectation(
        mae,
        Fits(tuple(fits)),
        tuple(factors),
        largest_mae=BEYOND * float(expected.max()),
        largest_misfit=BEYOND * float(misfits.max()),
        samples=len(errors),
        rank_correlation=float("nan"),
        coverage=float("nan"),
    )


def _sets(features: Features, optional: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Names of the features with and without those that are not always there, the most first."""
    there = [group for group in optional if set(group) & set(features)]
    for wanted in sorted(product((True, False), repeat=len(there)), key=sum, reverse=True):
        left_out = {name for group, want in zip(there, wanted, strict=True) if not want for name in group}
        yield [name for name in features if name not in left_out]


def _take(values: NDArray, places: NDArray[np.integer]) -> NDArray:
    """(batch, 1, depth, width) to the values at (batch, cells) places."""
    return np.take_along_axis(values.reshape(len(values), -1), places, axis=1)


def _join(parts: Sequence[Features]) -> dict[str, NDArray[np.floating]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(features: Features, rows: NDArray[np.bool_]) -> dict[str, NDArray[np.floating]]:
    return {name: values[rows] for name, values in features.items()}


def _wide(values: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """The logarithm of each sample's value, once for each of its cells."""
    return np.repeat(np.log(values)[:, None], cells, axis=1)
