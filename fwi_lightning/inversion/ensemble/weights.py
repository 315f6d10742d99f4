"""Weights on the simplex: searched by Optuna from where convex optimisation ends, and what they are compared with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, CmaEsSampler, TPESampler
from scipy.optimize import minimize

from fwi_lightning.errors import UserError

Weights = NDArray[np.float64]

SAMPLERS = ("tpe", "cmaes")
"""Of Optuna: tree-structured Parzen estimator (Bergstra et al., 2011), CMA-ES (Hansen, 2016, arXiv:1604.00772)."""

CELLS = 400_000
"""Cells that a search looks at, at most, drawn from all samples alike."""

STEPS = 60
"""Iterations of the convex optimisation."""


class Blends:
    """The error of weighted means, on cells spread over all samples.

    Args:
        velocity: (members, samples, depth, width) in m/s.
        truth: (samples, depth, width) in m/s.
        seed: Of the cells. Default 0.
    """

    def __init__(self, velocity: NDArray[np.float32], truth: NDArray[np.float32], seed: int = 0) -> None:
        self.members, samples = velocity.shape[:2]
        flat, true = velocity.reshape(self.members, samples, -1), truth.reshape(samples, -1)
        cells = flat.shape[2]
        share = max(1, min(cells, CELLS // max(1, samples)))
        places = np.random.default_rng(seed).integers(cells, size=(samples, share))
        if share == cells:
            places[:] = np.arange(cells)
        self.truth = np.take_along_axis(true, places, 1).ravel().astype(np.float32)
        self.maps = np.stack([np.take_along_axis(one, places, 1).ravel() for one in flat]).astype(np.float32)

    def mae(self, weights: Sequence[float] | Weights) -> float:
        """Mean absolute error of a weighted mean, m/s."""
        return float(np.abs(self._error(weights)).mean(dtype=np.float64))

    def slope(self, weights: Weights) -> Weights:
        """Its gradient with respect to the weights, (members,)."""
        return (self.maps @ np.sign(self._error(weights)) / len(self.truth)).astype(np.float64)

    def _error(self, weights: Sequence[float] | Weights) -> NDArray[np.float32]:
        return np.asarray(weights, np.float32) @ self.maps - self.truth


def solve(blends: Blends) -> Weights:
    """The weights of least mean absolute error: a convex problem, solved by sequential quadratic programming.

    Args:
        blends: The members.

    Returns:
        (members,), none negative, of sum 1. With millions of cells the kinks of the absolute value smooth out.
    """
    equal = np.full(blends.members, 1 / blends.members)
    found = minimize(
        blends.mae,
        equal,
        jac=blends.slope,
        method="SLSQP",
        bounds=[(0, 1)] * blends.members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": STEPS, "ftol": 1e-4},
    )
    weights = normalise(found.x)
    return weights if blends.mae(weights) <= blends.mae(equal) else equal


def normalise(weights: NDArray[np.floating] | Sequence[float]) -> Weights:
    """Weights of sum 1, negative ones cut off; equal ones if nothing is left."""
    positive = np.clip(np.asarray(weights, np.float64), 0, None)
    total = positive.sum()
    return positive / total if total > 0 else np.full(len(positive), 1 / len(positive))


def search(blends: Blends, trials: int, samplers: Sequence[str] = SAMPLERS, seed: int = 0) -> Weights:
    """The best weights that Optuna finds, no worse than any of its starts.

    Each sampler begins with equal weights, each member alone, and the solution of `solve`. A trial draws a number of
    0..1 for each member; the weights are these divided by their sum.

    Args:
        blends: The members.
        trials: Trials of each sampler.
        samplers: Of `SAMPLERS`. Default: both.
        seed: Of the samplers. Default 0.

    Returns:
        (members,), none negative, of sum 1.

    Raises:
        UserError: If a sampler is unknown.
    """
    for name in samplers:
        if name not in SAMPLERS:
            raise UserError(f"samplers must be of {', '.join(SAMPLERS)}, got {name!r}.")
    if blends.members == 1:
        return np.ones(1)
    solution = solve(blends)
    starts = [np.full(blends.members, 1 / blends.members), *np.eye(blends.members), solution]
    best, least = min(((start, blends.mae(start)) for start in starts), key=lambda pair: pair[1])
    for name in samplers:
        found = _optimise(blends, trials, TPESampler(seed=seed) if name == "tpe" else CmaEsSampler(seed=seed), starts)
        if (error := blends.mae(found)) < least:
            best, least = found, error
    return normalise(best)


def _optimise(blends: Blends, trials: int, sampler: BaseSampler, starts: Sequence[Weights]) -> Weights:
    names = [f"w{number}" for number in range(blends.members)]

    def error(trial: optuna.Trial) -> float:
        return blends.mae(normalise([trial.suggest_float(name, 0, 1) for name in names]))

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # enqueued trials are not drawn by CMA-ES, which it mentions each time
            study = optuna.create_study(sampler=sampler)
            for start in starts[:trials]:
                study.enqueue_trial(dict(zip(names, (start / start.max()).tolist(), strict=True)))
            study.optimize(error, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(level)
    return normalise([study.best_params[name] for name in names])


def weighted_median(velocity: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """Of each cell the value at which half of the weight lies below: minimises the weighted absolute distance.

    Args:
        velocity: (members, ...) in m/s.
        weights: (members,), of sum 1.

    Returns:
        (...) in m/s; the lower one of two values where the weight is split evenly between them.
    """
    order = velocity.argsort(axis=0)
    cumulated = np.asarray(weights, np.float64)[order].cumsum(axis=0)
    place = (cumulated >= 0.5 - 1e-9).argmax(axis=0)
    return np.take_along_axis(np.take_along_axis(velocity, order, 0), place[None], 0)[0]
