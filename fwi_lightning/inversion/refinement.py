"""Full waveform inversion of one sample: the map whose simulated record is the recorded one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from torch import Tensor

from fwi_lightning.data.augment.flip import mirrored
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.bending import bend, bend_map
from fwi_lightning.inversion.curvature import gauss_newton_matrix, sensitivity
from fwi_lightning.inversion.elimination import LARGEST_INVERSE, fewest_areas
from fwi_lightning.inversion.merging import merge
from fwi_lightning.inversion.newton import DAMPING, Areas, GaussNewton
from fwi_lightning.inversion.objective import Enough, Objective, Refined
from fwi_lightning.inversion.priors import TEXTURES, GaussianProcess, Prior, TotalVariation
from fwi_lightning.inversion.pursuit import pursue
from fwi_lightning.inversion.whole_cells import Stack, choose_layers, settle
from fwi_lightning.survey import OPENFWI, Survey

AUTO = "auto"
SHAPED = ("curved", "faulted")
"""Priors that begin with a profile and a shape; see `fwi_lightning.inversion.bending`."""

PRIORS = (AUTO, "layers", "flat", *SHAPED, *TEXTURES)

SCALE = 1000.0
"""m/s to a unit of the optimiser."""

WINDOWS = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Shares of the record that L-BFGS listens to, one after the other: what is above has to be right first."""

STRIDES, TEXTURE_STRIDES = 20, 10
"""Iterations of L-BFGS in each window; over textures the steps after it take over from further away."""

FAINTEST = 0.1
"""Importance below which a cell moves no more readily."""

SHARE = 0.1
"""The total variation's share of the objective in L-BFGS, in units of the data's."""

WEIGHTS = {"layers": (5.0, 1.0), "flat": (5.0, 0.5), "Style_A": (1.0, 1.0), "Style_B": (1.0, 1.0)}
"""The prior's share of the objective in Gauss-Newton steps, in units of the data's, and how its weight falls beyond."""

MERGED_STEPS = 4
"""Gauss-Newton steps at most with merged cells; the first that others follow is the last. With cells there is one:
a second costs as much as three with merged cells and gains less."""

FLAT_STEPS = 4
"""Gauss-Newton steps with rows."""

TEXTURE_STEPS = 80
"""Quasi-Newton steps at most after a Gauss-Newton step over textures, whose prior is quadratic."""

FEWEST_STEPS = 10
"""Such steps at most with the fewest areas..."""

GAIN = 0.5
"""... with which a step that leaves more than this share of the misfit is the last."""

SURE = 1e-4
"""Damping of the first step with the fewest areas."""

ACCEPTED = 10.0
"""Factor by which the misfit may rise with the fewest areas: they are nearer the truth than the misfit tells."""

ELIMINATION_COST = 3.0
"""Duration of the elimination in units of a step with merged cells."""

FALL = 0.9
"""Share of the misfit that may be left after a round of these steps for another one."""

SMOOTHING = 10.0
"""m/s, of the total variation where 5 % of the record and more is left; in proportion to it below."""

SHARPEST = 0.3
"""m/s, the least smoothing."""

STEP_COST = 3.0
"""Duration of a Gauss-Newton step as far as the sensitivities foretell it, in units of theirs."""

LARGEST = 20_000
"""Cells up to which the curvature is written out; it takes 4 bytes for each pair of them."""

FLAT = 1e-3
"""Relative rms difference up to which a gather counts as that of a shot elsewhere, or its mirror image."""

NEARLY_FLAT = 0.1
"""The same for a shot elsewhere, with what the sides send back; over OpenFWI's families bent ground has 0.03 to 1."""


def refine(
    gathers: Tensor,
    start: Tensor,
    survey: Survey = OPENFWI,
    seconds: float = 60.0,
    misfit: float = 1e-6,
    bounds: tuple[float, float] = (1500.0, 4500.0),
    prior: str = AUTO,
    on_step: Callable[[float, float], None] | None = None,
) -> Refined:
    """Minimise the difference of the records plus a prior whose weight falls with it.

    Far from the answer by L-BFGS, which takes long strides at the price of a gradient; then by Gauss-Newton steps,
    which see how the record depends on all cells together and so reach the deep ones. See `Objective` for the misfit,
    `fwi_lightning.inversion.priors` for what is assumed of a map.

    Args:
        gathers: (shots, time, receivers) as recorded.
        start: (1, depth, width) or (depth, width) in m/s, such as a network's answer.
        survey: The survey. Default: OpenFWI's.
        seconds: Time to spend; no step begins that would not end within it. Default 60.
        misfit: Relative rms residual at which the map is good enough. Default 0.000001.
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).
        prior: "layers" (piecewise constant), "flat" (the same in every column), "curved" (flat where the record says
            so, else layers bent by one shared curve are tried first), "faulted" (the same with flat layers that one
            straight fault offsets), "Style_A" or "Style_B" (their textures), or "auto": flat where the record says so,
            else layers. Default "auto".
        on_step: Called after each simulation with seconds and the least misfit so far. Default: nothing.

    Returns:
        The map that explains the record best, or over layers the last one of few areas that explains nearly as much;
        never worse than the start in data space.

    Raises:
        UserError: If the shapes do not fit the survey, a value is not finite, or the prior is unknown.
    """
    check_prior(prior)
    objective = Objective(gathers, start, survey, bounds, seconds, misfit, on_step)
    if prior in (AUTO, *SHAPED) and looks_flat(objective.gathers, survey):
        prior = "flat"
    elif prior == AUTO:
        prior = "layers"
    whole = objective
    if prior == "flat":
        # Each shot over flat ground tells the same.
        shot = survey.shots // 2
        alone = replace(survey, shot_columns=(survey.shot_columns[shot],))
        objective = Objective(gathers[shot : shot + 1], start, alone, bounds, whole.left(), misfit, on_step)
    with suppress(Enough):
        objective.check()
        found = prior in SHAPED and bend(objective, faulted=prior == "faulted")
        _refine(objective, "layers" if found else prior, WINDOWS[-1:] if found else WINDOWS)
    if objective is not whole:
        whole.adopt(objective.found.velocity, objective.found.history)
    if objective.simple is not None and whole.found.misfit > misfit:
        whole.adopt(objective.simple[None].float(), factor=math.sqrt(ACCEPTED))
    if prior not in TEXTURES:
        # OpenFWI's layers have whole numbers; whether these are the ones the record decides.
        whole.adopt(whole.found.velocity.round())
    whole.found.seconds = seconds - whole.left()
    return whole.found


def check_prior(prior: str) -> str:
    """The prior, if there is one of that name.

    Raises:
        UserError: If there is none.
    """
    if prior not in PRIORS:
        raise UserError(f"prior must be {', '.join(PRIORS[:-1])} or {PRIORS[-1]}, got {prior!r}.")
    return prior


def prior_of(family: str) -> str:
    """The prior for maps of a family, as far as its name tells."""
    if family in TEXTURES:
        return family
    if family.startswith("CurveVel"):
        return "curved"
    return "faulted" if family == "FlatFault_A" else AUTO


def _refine(objective: Objective, prior: str, windows: Sequence[float]) -> None:
    """Both methods one after the other, first in some windows.

    Raises:
        Enough: As `Objective`.
    """
    depth, width = objective.survey.grid
    cells = torch.arange(depth * width).reshape(depth, width)
    areas = Areas(cells // width if prior == "flat" else cells, objective.held)
    # Shapes that do not explain the record are no better a start.
    values = areas.mean(objective.start if prior in SHAPED else _known(objective))
    small = cells.numel() <= LARGEST
    begun = time.monotonic()
    importance = torch.ones(depth, width, dtype=torch.float64)
    if small:
        importance = _importance(objective, areas, areas.spread(values))
    cost = STEP_COST * (time.monotonic() - begun)
    texture = GaussianProcess(objective.start, TEXTURES[prior]) if prior in TEXTURES else None

    def make(velocity: Tensor, misfit: float) -> Prior:
        sharp = max(SMOOTHING * min(1.0, misfit / 0.05), SHARPEST)
        return texture or TotalVariation(importance, sharp)

    while True:
        for window in windows:
            with objective.within(window) as part:
                values = _descend(part, areas, values, importance, TEXTURE_STRIDES if texture else STRIDES)
                found = [values, pursue(part, areas, values)] if prior == "flat" else [values]
            objective.values(torch.stack([areas.spread(each) for each in found]))
        if prior in SHAPED:
            # Layers of which none were found by their shape may be read off a map that is better by now.
            if bend_map(objective, areas.spread(values), faulted=prior == "faulted"):
                values = areas.mean(_known(objective))
            prior = "layers"
        if small:
            values = _approach(objective, areas, values, prior, make, cost)
        windows = WINDOWS[-1:]


def _known(objective: Objective) -> Tensor:
    """The best map so far, with the velocities that are known, which it need not have kept to."""
    return torch.where(objective.held, objective.start, objective.found.velocity[0].double())


def _approach(
    objective: Objective,
    areas: Areas,
    values: Tensor,
    prior: str,
    make: Callable[[Tensor, float], Prior],
    cost: float,
) -> Tensor:
    """Gauss-Newton steps while the misfit falls; over layers with single cells, merged cells and few areas in turn.

    Raises:
        Enough: As `Objective`.
    """
    balance, fall = WEIGHTS[prior]
    if prior in TEXTURES:
        return GaussNewton(objective, areas, make, balance, fall, cost, following=TEXTURE_STEPS).run(values)
    expected = cost
    while True:
        before = objective.found.misfit
        steps = GaussNewton(objective, areas, make, balance, fall, expected)
        if prior == "flat":
            values = steps.run(values, FLAT_STEPS)
            flat = Stack(np.zeros(0), np.zeros(1), np.zeros(areas.of_cell.shape[1]), np.zeros(0))
            settle(objective, choose_layers(objective, flat, values.numpy()))
        else:
            values = steps.run(values, 1)
            values = _simplify(objective, areas, values, make, cost)
        expected = steps.cost
        if objective.found.misfit > FALL * before:
            return values


def _simplify(
    objective: Objective, areas: Areas, values: Tensor, make: Callable[[Tensor, float], Prior], cost: float
) -> Tensor:
    """Steps with merged cells, then some with the fewest areas that explain nearly as much.

    Returns:
        Where they end.

    Raises:
        Enough: As `Objective`.
    """

    def solver(unknowns: Areas, cost: float = 0.0, damping: float = DAMPING[1]) -> GaussNewton:
        balance = WEIGHTS["layers"][0] * unknowns.count / areas.count
        return GaussNewton(objective, unknowns, make, balance, cost=cost, damping=damping)

    merged = merge(areas.spread(values), objective.held, objective.found.misfit)
    steps = solver(merged, cost)
    found = steps.run(merged.mean(areas.spread(values)), MERGED_STEPS, far=True)
    before = merged.spread(found)
    if merged.count > LARGEST_INVERSE:
        return areas.mean(before)
    objective.check(ELIMINATION_COST * steps.cost)
    fewest = fewest_areas(objective, merged, found)
    if fewest is None:
        return areas.mean(before)
    fewer, found = fewest
    objective.simple = fewer.spread(found)
    after = fewer.spread(solver(fewer, damping=SURE).run(found, FEWEST_STEPS, GAIN))
    # OpenFWI's layers have whole numbers.
    old, new, _ = objective.values(torch.stack([before, after, after.round()]))
    if new > ACCEPTED * old:
        return areas.mean(before)
    objective.simple = after
    return areas.mean(after)


def _importance(objective: Objective, areas: Areas, velocity: Tensor) -> Tensor:
    """Of each cell for the prior: the root of its sensitivity, 1 where the upper rows have their median, at most 1.

    Args:
        objective: The misfit.
        areas: The unknowns.
        velocity: (depth, width) in m/s.

    Returns:
        (depth, width) float64.
    """
    survey, weight = objective.survey, objective.weight
    if areas.single:
        felt = gaussian_filter(sensitivity(velocity, survey, weight).double().numpy(), 2)
    else:
        matrix = gauss_newton_matrix(velocity, survey, weight, areas.of_cell)
        felt = areas.spread(matrix.diagonal().double()).numpy()
    return torch.from_numpy(np.sqrt(felt / np.median(felt[:10]))).clamp(1e-3, 1)


def _descend(objective: Objective, areas: Areas, values: Tensor, importance: Tensor, strides: int) -> Tensor:
    """L-BFGS within bounds (Byrd, Lu, Nocedal and Zhu, 1995), with a total variation.

    The unknowns are velocities times their importance, the root of the curvature's diagonal: what the record feels
    little moves as readily as what it feels much.
    """
    unit = SCALE / areas.mean(importance).clamp_min(FAINTEST).numpy()
    low, high = (np.full(areas.count, bound) / unit for bound in objective.bounds)
    x = values.numpy() / unit
    low[areas.held.numpy()] = high[areas.held.numpy()] = x[areas.held.numpy()]
    variation = TotalVariation(importance, SMOOTHING)
    velocity = areas.spread(values)
    weight = SHARE * objective.value(velocity) / max(variation.energy(velocity)[0], 1e-12)

    def total(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        velocity = areas.spread(torch.from_numpy(x * unit))
        data, slope = objective.gradient(velocity)
        energy, pull = variation.energy(velocity)
        return data + weight * energy, areas.collect(slope + weight * pull).numpy() * unit

    settings = {"maxiter": strides, "maxcor": 20, "maxfun": 10**9, "ftol": 0.0, "gtol": 0.0}
    limits = list(zip(low, high, strict=True))
    found = minimize(total, x, jac=True, method="L-BFGS-B", bounds=limits, options=settings)
    return torch.from_numpy(found.x * unit)


def looks_flat(gathers: Tensor, survey: Survey) -> bool:
    """Whether the ground is the same in every column.

    Then a trace depends on its offset alone, but for what the sides of the map send back; and the gathers of shots
    that are each other's mirror images are so too, to 0.000001. Ground that is its own mirror image and hardly scatters
    passes for flat as well.

    Args:
        gathers: (shots, time, receivers) as recorded.
        survey: The survey.
    """
    first, place = survey.shot_columns[0], {column: index for index, column in enumerate(survey.receiver_columns)}
    compared = []
    for shot, column in enumerate(survey.shot_columns[1:], start=1):
        shared = [receiver for receiver in place if receiver - first + column in place]
        if shared:
            there = [place[receiver - first + column] for receiver in shared]
            compared.append(_unlike(gathers[shot][:, there], gathers[0][:, [place[one] for one in shared]]))
    if not compared:
        return False
    receivers = mirrored(survey.receiver_columns, survey)
    pairs = [(shot, image) for shot, image in enumerate(mirrored(survey.shot_columns, survey)) if image is not None]
    if None in receivers or not pairs:
        return max(compared) <= FLAT
    turned = max(_unlike(gathers[shot][:, receivers], gathers[image]) for shot, image in pairs)
    return turned <= FLAT and max(compared) <= NEARLY_FLAT


def _unlike(gather: Tensor, other: Tensor) -> float:
    """Relative rms difference of two gathers but for the last sample, which some families store as zeros."""
    return float((gather - other)[:-1].norm()) / max(float(other[:-1].norm()), 1e-30)
