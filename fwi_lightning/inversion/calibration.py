"""What a checkpoint knows of its own errors: fitted on validation data, stored in it, asked by predict.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.regression import Features, LogLinear
from fwi_lightning.models import Answer
from fwi_lightning.training.checkpoint import read_checkpoint

KEY = "calibration"
"""Where a checkpoint holds it."""

NETWORK = "network"
"""The step before all others: the network's own answer."""

FLOOR = 1e-4
"""Smallest misfit that counts: below, it is float32 that differs and not the map."""


@dataclass(frozen=True)
class Fits:
    """Fits of one error to several sets of features, the largest set first: not all are always there."""

    fits: tuple[LogLinear, ...]

    def choose(self, features: Iterable[str]) -> LogLinear:
        """The first fit that has all its features.

        Raises:
            UserError: If there is none.
        """
        there = set(features)
        for fit in self.fits:
            if set(fit.names) <= there:
                return fit
        raise UserError(
            "the calibration in the checkpoint does not fit this model: make it again with "
            "python -m fwi_lightning calibrate."
        )


@dataclass(frozen=True)
class Expectation:
    """What errors to expect of the maps after one step of the chain.

    Attributes:
        mae: Fits of a sample's MAE, m/s.
        cells: Fits of a cell's absolute error, m/s, given the sample's expected MAE.
        factors: For each of `cells`, what to multiply it by for `coverage` of the errors to lie within.
        largest_mae: Expected MAE, m/s, beyond which an answer is unlike all that validation saw.
        largest_misfit: The same of the misfit.
        samples: Validation samples of the fit.
        rank_correlation: Spearman's, of expected and true MAE, each half of them judged by the fit of the other.
        coverage: Share of the cells' errors within the uncertainty, each half judged by the other.
    """

    mae: Fits
    cells: Fits
    factors: tuple[float, ...]
    largest_mae: float
    largest_misfit: float
    samples: int
    rank_correlation: float
    coverage: float

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for a checkpoint."""
        plain = {name: value for name, value in vars(self).items() if name not in ("mae", "cells", "factors")}
        fits = {name: [fit.to_dict() for fit in getattr(self, name).fits] for name in ("mae", "cells")}
        return plain | fits | {"factors": list(self.factors)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Expectation:
        """The inverse of `to_dict`."""
        fits = {name: Fits(tuple(map(LogLinear.from_dict, settings[name]))) for name in ("mae", "cells")}
        return cls(**{**settings, **fits, "factors": tuple(settings["factors"])})


@dataclass(frozen=True)
class Calibration:
    """Expectations by step of the chain, and the random field that was fitted.

    Attributes:
        expectations: Name of a step, or `NETWORK`, to what is expected of the maps after it.
        crf: Settings of `models.crf.ContinuousCRF` by "field", "families" that it helps, its change of the MAE by
            family as "changes"; {} without one.
    """

    expectations: dict[str, Expectation] = field(default_factory=dict)
    crf: dict[str, Any] = field(default_factory=dict)

    def latest(self, steps: Sequence[str]) -> str | None:
        """The last of the steps done that something is known of; None if nothing is."""
        return next((step for step in reversed(steps) if step in self.expectations), None)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for a checkpoint."""
        return {
            "expectations": {name: one.to_dict() for name, one in self.expectations.items()},
            "crf": self.crf,
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        found = {name: Expectation.from_dict(one) for name, one in settings["expectations"].items()}
        return cls(found, dict(settings["crf"]))


def read_calibration(path: str | Path) -> Calibration | None:
    """The calibration in a checkpoint; None if it has none.

    Raises:
        UserError: If the file is no checkpoint, or its calibration is broken.
    """
    checkpoint = read_checkpoint(path)
    if KEY not in checkpoint:
        return None
    try:
        return Calibration.from_dict(checkpoint[KEY])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the calibration in {path} is of another version: make it again with "
            f"python -m fwi_lightning calibrate ckpt={path}."
        ) from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Put a calibration into a checkpoint, which stays as it is otherwise; one that it had is replaced.

    Raises:
        UserError: If the file is no checkpoint or cannot be written.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path) | {KEY: calibration.to_dict()}
    temporary = path.with_name(f".{path.name}.part")
    try:
        torch.save(checkpoint, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error


def sample_features(
    velocity: Tensor,
    answer: Answer | None = None,
    misfits: Mapping[str, Tensor] | None = None,
    spread: Tensor | None = None,
) -> dict[str, NDArray[np.float64]]:
    """What is known of each sample without labels, (batch,) by name.

    Args:
        velocity: (batch, 1, depth, width) in m/s: the maps to be judged.
        answer: What the network said. Default: none was asked.
        misfits: (batch,) each: "misfit" of these maps, "misfit_network" of the network's own answer. Default: unknown.
        spread: (batch, 1, depth, width) in m/s: standard deviation of the members of test-time augmentation. Default:
            there were none.

    Returns:
        Logarithms: "down" and "across", the mean step between neighbouring cells, m/s; of what is known "misfit",
        "misfit_network", "spread" and "scale" (of the uncertainty head), "inconsistency", "doubt" (of the family head).
    """

    def logarithm(values: Tensor, floor: float = 1.0) -> NDArray[np.float64]:
        return values.double().clamp_min(floor).log().numpy()

    def mean(values: Tensor) -> Tensor:
        return values.double().mean(dim=(1, 2, 3))

    found = {
        "down": logarithm(mean(velocity.diff(dim=2).abs())),
        "across": logarithm(mean(velocity.diff(dim=3).abs())),
    }
    found |= {name: logarithm(values, FLOOR) for name, values in (misfits or {}).items()}
    if spread is not None:
        found["spread"] = logarithm(mean(spread))
    if answer is not None:
        if answer.scale is not None:
            found["scale"] = logarithm(mean(answer.scale))
        if answer.inconsistency is not None:
            found["inconsistency"] = logarithm(answer.inconsistency, 1e-3)
        if answer.family is not None:
            found["doubt"] = logarithm(1 - answer.family.softmax(dim=1).amax(dim=1), 1e-3)
    return found


def cell_features(
    velocity: Tensor,
    expected: NDArray[np.floating],
    scale: Tensor | None = None,
    spread: Tensor | None = None,
    illumination: Tensor | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What is known of each cell without labels, (batch, 1, depth, width) by name.

    Args:
        velocity: (batch, 1, depth, width) in m/s.
        expected: (batch,), m/s: the expected MAE of each sample.
        scale: Of the uncertainty head, as `velocity`. Default: the model has none.
        spread: As `sample_features`.
        illumination: As `velocity`, in any unit; see `physics.illuminate`. Default: the maps were not simulated.

    Returns:
        "expected", logarithm; "depth" and "depth_squared", 0 at the surface and 1 at the bottom; "edge", 1 at the sides
        and 0 in the middle; "jump", logarithm of the largest step within 2 cells; logarithms of the others that are
        given, that of the illumination relative to the map's mean.
    """
    depth, width = velocity.shape[-2:]
    rows = torch.linspace(0, 1, depth)[:, None].expand(depth, width)
    sides = (2 * torch.linspace(0, 1, width) - 1).square().expand(depth, width)
    steps = torch.zeros_like(velocity)
    steps[..., 1:, :] = velocity.diff(dim=2).abs()
    steps[..., 1:] = torch.maximum(steps[..., 1:], velocity.diff(dim=3).abs())
    jump = functional.max_pool2d(steps, 5, stride=1, padding=2).clamp_min(10).log()
    found = {
        "expected": torch.as_tensor(expected).log().reshape(-1, 1, 1, 1).expand_as(velocity),
        "depth": rows.expand_as(velocity),
        "depth_squared": rows.square().expand_as(velocity),
        "edge": sides.expand_as(velocity),
        "jump": jump,
    }
    for name, values in (("scale", scale), ("spread", spread)):
        if values is not None:
            found[name] = values.clamp_min(1).log()
    if illumination is not None:
        # Ahead of the last arrival a cell is dark; a millionth of the mean says no less than a billionth.
        relative = illumination / illumination.mean(dim=(2, 3), keepdim=True).clamp_min(1e-30)
        found["illumination"] = relative.clamp(1e-6, 10).log()
    return {name: values.float().numpy() for name, values in found.items()}


def expected_mae(expectation: Expectation, features: Features) -> NDArray[np.float64]:
    """Expected MAE of each sample, (batch,) in m/s; `features` as `sample_features`."""
    return expectation.mae.choose(features).predict(features)


def uncertainty(expectation: Expectation, features: Features) -> NDArray[np.float32]:
    """Map that 68 % of the errors lie within, (batch, 1, depth, width) in m/s; `features` as `cell_features`."""
    fit = expectation.cells.choose(features)
    factor = expectation.factors[expectation.cells.fits.index(fit)]
    return (factor * fit.predict(features)).astype(np.float32)
