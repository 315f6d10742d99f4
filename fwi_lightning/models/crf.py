"""A continuous conditional random field on velocity maps: what a prediction becomes when neighbours have a say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError

JUMP = 100.0
"""m/s: a step of the prediction at which `boundary` begins to cut the tie between two cells."""

LARGEST_TIE = 6.0
"""Largest logarithm of a tie: beyond 400 times the unary weight a map is flat, and the solver slow."""

STEPS = 400
"""Steps of conjugate gradients at most; a tie of 100 takes some 100."""

REWEIGHTINGS = 50
"""Repetitions of the robust form at most; 5 to 15 are usual."""

Edges = tuple[Tensor, Tensor]
"""One value for each pair of neighbours: (batch, 1, depth - 1, width) down, (batch, 1, depth, width - 1) across."""


def differences(x: Tensor) -> Edges:
    """Each cell's step to the next one down and to the next one across."""
    return x.diff(dim=-2), x.diff(dim=-1)


def _gather(down: Tensor, across: Tensor) -> Tensor:
    """The transpose of `differences`."""
    pad = nn.functional.pad
    return pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(across, (1, 0)) - pad(across, (0, 1))


def _apply(unary: Tensor, ties: Edges, x: Tensor) -> Tensor:
    """(U + D^T W D) x."""
    down, across = differences(x)
    return unary * x + _gather(ties[0] * down, ties[1] * across)


def conjugate_gradients(unary: Tensor, ties: Edges, right: Tensor, tolerance: float) -> Tensor:
    """Solve (U + D^T W D) x = right for each sample of a batch, with the diagonal as preconditioner.

    Args:
        unary: (batch, 1, depth, width), positive.
        ties: Of each pair of neighbours, not negative.
        right: (batch, 1, depth, width).
        tolerance: Residual, relative to the right side, at which a sample is done; none waits longer than `STEPS`.

    Returns:
        (batch, 1, depth, width).
    """
    diagonal = unary + _gather_both(ties)
    x, residual = torch.zeros_like(right), right.clone()
    search = residual / diagonal
    product = _dot(residual, search)
    enough = tolerance**2 * _dot(right, right / diagonal)
    for _ in range(STEPS):
        if bool((product <= enough).all()):
            break
        image = _apply(unary, ties, search)
        # A sample that is done has no direction left.
        step = product / _dot(search, image).clamp_min(torch.finfo(right.dtype).tiny)
        x = x + step * search
        residual = residual - step * image
        preconditioned = residual / diagonal
        following = _dot(residual, preconditioned)
        search = preconditioned + following / product.clamp_min(torch.finfo(right.dtype).tiny) * search
        product = following
    return x


def _gather_both(ties: Edges) -> Tensor:
    """The sum of the ties of each cell."""
    pad = nn.functional.pad
    down, across = ties
    return pad(down, (0, 0, 1, 0)) + pad(down, (0, 0, 0, 1)) + pad(across, (1, 0)) + pad(across, (0, 1))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(dim=(1, 2, 3), keepdim=True)


def _stretch(steps: Edges, threshold: Tensor | None) -> Edges:
    """sqrt(1 + (step / threshold)^2) of each pair: 1 in the quadratic form."""
    if threshold is None:
        return torch.ones_like(steps[0]), torch.ones_like(steps[1])
    return (1 + (steps[0] / threshold) ** 2).sqrt(), (1 + (steps[1] / threshold) ** 2).sqrt()


class _Minimum(torch.autograd.Function):
    """The map of least energy. Its gradient follows from the implicit function theorem, with one more solve.

    At the minimum  u (v - d) + D^T (w D v / s) = 0  with s = sqrt(1 + (D v / threshold)^2). Differentiating this,
    a gradient g with respect to v becomes, with  h = (U + D^T W s^-3 D)^-1 g,

        d: u h      u: h (d - v)      w: -(D h) (D v) / s      threshold: -sum of w (D h) (D v)^3 / (threshold s)^3.
    """

    @staticmethod
    def forward(
        prediction: Tensor, unary: Tensor, down: Tensor, across: Tensor, threshold: Tensor | None, tolerance: float
    ) -> Tensor:
        steps = differences(prediction)
        change = torch.zeros_like(prediction)
        for _ in range(1 if threshold is None else REWEIGHTINGS):
            stretch = _stretch(differences(prediction + change), threshold)
            ties = (down / stretch[0], across / stretch[1])
            # Solved for the change: float32 then rounds what is small.
            right = -_gather(ties[0] * steps[0], ties[1] * steps[1])
            before, change = change, conjugate_gradients(unary, ties, right, tolerance)
            if bool(_dot(change - before, change - before).le((10 * tolerance) ** 2 * _dot(change, change)).all()):
                break
        return prediction + change

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.tolerance = inputs
        ctx.save_for_backward(*tensors, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        prediction, unary, down, across, threshold, velocity = ctx.saved_tensors
        steps = differences(velocity)
        s = _stretch(steps, threshold)
        curvature = (down / s[0] ** 3, across / s[1] ** 3)
        found = conjugate_gradients(unary, curvature, gradients[0].contiguous(), ctx.tolerance)
        pulls = differences(found)
        by_ties = [-pull * step / one for pull, step, one in zip(pulls, steps, s, strict=True)]
        by_threshold = None
        if threshold is not None:
            cubes = ((step / (threshold * one)) ** 3 for step, one in zip(steps, s, strict=True))
            parts = [tie * pull * cube for tie, pull, cube in zip((down, across), pulls, cubes, strict=True)]
            by_threshold = -sum(part.sum() for part in parts)
        return unary * found, found * (prediction - velocity), *by_ties, by_threshold, None


def minimise(
    prediction: Tensor, unary: Tensor, ties: Edges, threshold: Tensor | None = None, tolerance: float = 1e-4
) -> Tensor:
    """The map of least energy, differentiable in all that it is made of.

        E(v) = sum over cells of u (v - d)^2  +  sum over pairs of neighbours of w rho(v_i - v_j)

    with rho(x) = x^2, or in the robust form rho(x) = 2 t^2 (sqrt(1 + (x/t)^2) - 1): x^2 below the threshold t, and
    2 t |x| above it, so that a jump costs in proportion (Charbonnier et al., 1997, doi:10.1109/83.551699). The robust
    form is solved by reweighting: each round is the quadratic one with ties w / sqrt(1 + (x/t)^2).

    Args:
        prediction: d, (batch, 1, depth, width).
        unary: u, the same shape, positive: 1 / sigma^2.
        ties: w, of the unit of u, not negative.
        threshold: t, a tensor of one value, in the unit of the prediction. Default: the quadratic form.
        tolerance: Relative residual of the solver. Default 1e-4.

    Returns:
        (batch, 1, depth, width).
    """
    found: Tensor = _Minimum.apply(prediction, unary, *ties, threshold, tolerance)
    return found


def energy(velocity: Tensor, prediction: Tensor, unary: Tensor, ties: Edges, threshold: Tensor | None = None) -> Tensor:
    """The energy that `minimise` minimises, (batch,); arguments as there."""
    steps = differences(velocity)
    if threshold is None:
        costs = [step**2 for step in steps]
    else:
        costs = [2 * threshold**2 * (s - 1) for s in _stretch(steps, threshold)]
    cells = (1, 2, 3)
    pairs = sum((tie * cost).sum(dim=cells) for tie, cost in zip(ties, costs, strict=True))
    return (unary * (velocity - prediction) ** 2).sum(dim=cells) + pairs


class ContinuousCRF(nn.Module):
    """The field with ties that follow the prediction's own boundaries, and a few numbers to learn.

    The tie of two neighbours is  w = exp(tie) (1 + (d_i - d_j)^2 / 100^2)^-boundary  times the mean of u: a step of
    the prediction well above 100 m/s is a boundary, across which cells are not drawn together. `tie` is one number for
    pairs above each other and one for pairs beside each other.

    Args:
        robust: Whether a step costs in proportion (L1) beyond `threshold` and not squared. Default True.
        tie: Logarithm of the tie of cells without a step between them, one number or those of pairs above and beside
            each other. Default 0.
        boundary: How fast a step cuts it. Default 1.
        threshold: m/s, of the robust form. Default 20.
        tolerance: As `minimise`. Default 1e-4.

    Raises:
        UserError: If `threshold` or `tolerance` is not positive, or `boundary` negative.
    """

    def __init__(
        self,
        robust: bool = True,
        tie: float | Sequence[float] = 0.0,
        boundary: float = 1.0,
        threshold: float = 20.0,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        if not (threshold > 0 and tolerance > 0 and boundary >= 0):
            raise UserError(
                "a CRF needs threshold and tolerance above 0 and boundary of 0 or more, got "
                f"threshold={threshold}, tolerance={tolerance}, boundary={boundary}."
            )
        self.robust, self.tolerance = robust, tolerance
        self.tie = nn.Parameter(torch.tensor([tie, tie] if isinstance(tie, float | int) else list(tie)).float())
        self.boundary = nn.Parameter(torch.tensor(float(boundary)))
        self.log_threshold = nn.Parameter(torch.tensor(float(threshold)).log(), requires_grad=robust)

    def forward(self, prediction: Tensor, scale: Tensor | None = None) -> Tensor:
        """The map of least energy.

        Args:
            prediction: (batch, 1, depth, width) in m/s.
            scale: Expected error of each cell, the same shape, in m/s. Default: the same everywhere.

        Returns:
            (batch, 1, depth, width) in m/s.
        """
        return minimise(prediction, *self._weights(prediction, scale), self._threshold(), self.tolerance)

    def energy(self, velocity: Tensor, prediction: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        """The energy of a map in units of (100 m/s)^2 a cell, (batch,).

        Args:
            velocity: (batch, 1, depth, width) in m/s.
            prediction: Of the unary term and the ties. Default: the map itself, whose unary term is zero, and what is
                left is its roughness between its own boundaries.
            scale: As `forward`.
        """
        given = velocity if prediction is None else prediction
        total = energy(velocity, given, *self._weights(given, scale), self._threshold())
        return total / (JUMP**2 * velocity[0].numel())

    def settings(self) -> dict[str, Any]:
        """The arguments that make such a field again, with what it has learnt."""
        return {
            "robust": self.robust,
            "tie": self.tie.tolist(),
            "boundary": max(0.0, self.boundary.item()),
            "threshold": self.log_threshold.exp().item(),
            "tolerance": self.tolerance,
        }

    def _threshold(self) -> Tensor | None:
        return self.log_threshold.exp() if self.robust else None

    def _weights(self, prediction: Tensor, scale: Tensor | None) -> tuple[Tensor, Edges]:
        """Unary weights, 1 where the scale is the map's mean, and the ties."""
        unary = torch.ones_like(prediction)
        if scale is not None:
            mean = scale.mean(dim=(1, 2, 3), keepdim=True)
            unary = (mean / scale.clamp_min(0.1 * mean)) ** 2

        def tie(step: Tensor, logarithm: Tensor) -> Tensor:
            cut = self.boundary.clamp_min(0) * (1 + (step / JUMP) ** 2).log()
            return (logarithm - cut).clamp_max(LARGEST_TIE).exp()

        down, across = differences(prediction)
        return unary, (tie(down, self.tie[0]), tie(across, self.tie[1]))
