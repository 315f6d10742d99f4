"""Expected sizes of errors: a product of powers of what is known, fitted to errors that were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = Mapping[str, NDArray[np.floating]]
"""Name of a feature to its values, (samples,)."""

RIDGE = 0.01
"""Pull of the exponents to zero, in units of a sample's weight: of two features that say the same, each gets half."""

STEPS = 100
"""Newton steps at most; 5 to 10 are usual."""


@dataclass(frozen=True)
class LogLinear:
    """log of the expected error = intercept + sum over features of slope (feature - centre) / spread.

    Attributes:
        names: Of the features, which are logarithms themselves where that makes sense.
        centres: Their means over the samples of the fit.
        spreads: Their standard deviations.
        slopes: One for each.
        intercept: Logarithm of the error of a sample with mean features.
    """

    names: tuple[str, ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]
    slopes: tuple[float, ...]
    intercept: float

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Expected errors, of the unit of those that were fitted.

        Args:
            features: At least those of `names`, arrays of one shape or of shapes that broadcast.
        """
        logarithm: NDArray[np.float64] = np.asarray(self.intercept)
        for name, centre, spread, slope in zip(self.names, self.centres, self.spreads, self.slopes, strict=True):
            logarithm = logarithm + slope / spread * (features[name] - centre)
        return np.exp(logarithm)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for a checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> LogLinear:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        return cls(**values)


def fit_log_linear(features: Features, errors: NDArray[np.floating], names: Sequence[str]) -> LogLinear:
    """Minimise the mean of error / expected + log(expected), a convex problem, by Newton's method.

    It is the likelihood of a Laplace distribution for signed errors, and that of a gamma regression with a logarithmic
    link for mean absolute ones (McCullagh and Nelder, Generalized Linear Models, 1989, chapter 8): the expectations are
    right on average, which a least-squares fit of logarithms is not.

    Args:
        features: Values (samples,) by name.
        errors: (samples,), not negative.
        names: The features to use.

    Returns:
        The fit.
    """
    columns = np.stack([np.asarray(features[name], np.float64) for name in names], axis=1)
    centres, spreads = columns.mean(axis=0), columns.std(axis=0)
    spreads = np.where(spreads > 1e-9, spreads, 1.0)
    design = np.column_stack([np.ones(len(errors)), (columns - centres) / spreads])
    mean = max(float(errors.mean()), 1e-12)
    ratios = np.asarray(errors, np.float64) / mean
    penalty = RIDGE * np.eye(design.shape[1])
    penalty[0, 0] = 0
    beta = np.zeros(design.shape[1])

    def cost(beta: NDArray[np.float64]) -> float:
        logarithm = design @ beta
        return float((ratios * np.exp(-logarithm) + logarithm).mean() + 0.5 * beta @ penalty @ beta)

    for _ in range(STEPS):
        share = ratios * np.exp(-design @ beta)
        gradient = design.T @ (1 - share) / len(ratios) + penalty @ beta
        curvature = (design * share[:, None]).T @ design / len(ratios) + penalty
        direction = np.linalg.solve(curvature + 1e-9 * np.eye(len(beta)), gradient)
        step, before = 1.0, cost(beta)
        while cost(beta - step * direction) > before and step > 1e-6:
            step /= 2
        beta = beta - step * direction
        if np.abs(step * direction).max() < 1e-8:
            break
    return LogLinear(
        tuple(names),
        tuple(centres.tolist()),
        tuple(spreads.tolist()),
        tuple(beta[1:].tolist()),
        float(np.log(mean) + beta[0]),
    )
