"""The gradient of the simulation: against autograd, finite differences and float64, and as a transpose."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import OPENFWI, Survey
from tests.physics.reference import simulate_differentiably

SMALL = Survey(
    grid=(14, 17),
    samples=101,  # neither whole blocks nor an even number
    frequency=25,
    shot_columns=(0, 7, 16),
    receiver_columns=(0, 3, 9, 16, 16),
    sponge=9,
)
"""Shots and receivers at the edges, one receiver twice."""

MEDIUM = Survey(grid=(40, 44), samples=400, shot_columns=(5, 30), receiver_columns=tuple(range(44)), sponge=30)


def random_map(survey: Survey, seed: int, low: float = 1500, high: float = 3500) -> Tensor:
    """White noise: nothing can hide in it."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(survey.grid, generator=generator, dtype=torch.float64)


def random_like_gathers(survey: Survey, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(survey.gathers_shape, generator=generator, dtype=torch.float64)


def gradient_of(velocity: Tensor, survey: Survey, residual: Tensor, slowest: Tensor | None = None) -> Tensor:
    velocity = velocity.clone().requires_grad_()
    simulate(velocity, survey, slowest).mul(residual).sum().backward()
    assert velocity.grad is not None
    return velocity.grad


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative rms."""
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("survey", [SMALL, MEDIUM], ids=["small", "medium"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradient_equals_autograd_through_plain_torch(survey: Survey, dtype: torch.dtype, allowed: float) -> None:
    velocity, residual = random_map(survey, 0), random_like_gathers(survey, 1)
    plain = velocity.clone().requires_grad_()
    simulate_differentiably(plain, survey)[0].mul(residual).sum().backward()
    assert plain.grad is not None
    assert difference(gradient_of(velocity.to(dtype), survey, residual.to(dtype)), plain.grad) < allowed


@pytest.mark.parametrize("survey", [SMALL, MEDIUM], ids=["small", "medium"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adjoint(survey: Survey, dtype: torch.dtype, allowed: float) -> None:
    """<J dv, r> = <dv, J^T r>, with J dv from forward-mode differentiation of the plain version."""
    velocity, residual = random_map(survey, 2), random_like_gathers(survey, 3)
    change = random_map(survey, 4, -1, 1)
    slowest = velocity.min().item()
    _, born = torch.func.jvp(lambda v: simulate_differentiably(v, survey, slowest)[0], (velocity,), (change,))
    gradient = gradient_of(velocity.to(dtype), survey, residual.to(dtype)).double()
    gap = (born * residual).sum() - (change * gradient).sum()
    assert abs(gap.item()) < allowed * (born.norm() * residual.norm()).item()
    assert (born * residual).sum().abs() > 1e-3 * born.norm() * residual.norm()  # neither side is zero


def test_gradient_equals_central_differences() -> None:
    """Of the full scheme in float64, over a drawn map, at the source, at an edge, inside, and everywhere at once."""
    velocity = torch.from_numpy(draw("CurveFault_B", 1, seed=3))[0, 0].double()
    survey = dataclasses.replace(OPENFWI, shot_columns=(17,), samples=500)
    slowest = velocity.min()
    residual = random_like_gathers(survey, 5)
    gradient = gradient_of(velocity, survey, residual, slowest)
    changes = [torch.zeros_like(velocity) for _ in range(3)] + [random_map(survey, 6, -1, 1)]
    for change, cell in zip(changes[:3], [(1, 17), (30, 69), (20, 40)], strict=True):
        change[cell] = 1
    for change in changes:
        step = 0.01  # m/s
        up, down = (simulate(velocity + sign * step * change, survey, slowest) for sign in (1, -1))
        numerical = ((up - down) * residual).sum().item() / (2 * step)
        assert (gradient * change).sum().item() == pytest.approx(numerical, rel=1e-6)


FULL = [("CurveFault_B", 0), ("Style_A", 1), ("constant", 4500), ("noise", 2)]


def full_map(kind: str, number: int) -> Tensor:
    if kind == "constant":
        return torch.full(OPENFWI.grid, float(number))
    if kind == "noise":
        return random_map(OPENFWI, number, 1500, 4500).float()
    return torch.from_numpy(draw(kind, 1, seed=number))[0, 0]


def check_against_float64(velocity: Tensor) -> None:
    """Float32 leaves out what no receiver can hear; float64 leaves out nothing."""
    recorded = simulate(velocity * 0.97)
    residual = simulate(velocity) - recorded
    exact = gradient_of(velocity.double(), OPENFWI, residual.double())
    assert difference(gradient_of(velocity, OPENFWI, residual), exact) < 1e-4


@pytest.mark.parametrize(("kind", "number"), FULL[:2])
def test_float32_gradient_equals_float64(kind: str, number: int) -> None:
    check_against_float64(full_map(kind, number))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), FULL[2:] + [(family, 9) for family in FAMILIES])
def test_float32_gradient_equals_float64_on_every_family(kind: str, number: int) -> None:
    check_against_float64(full_map(kind, number))


def test_gradient_depends_neither_on_batch_nor_on_threads() -> None:
    velocity = torch.stack([random_map(SMALL, seed).float() for seed in range(3)])
    residual = torch.stack([random_like_gathers(SMALL, seed).float() for seed in range(3)])
    together = gradient_of(velocity, SMALL, residual)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = torch.stack([gradient_of(v, SMALL, r) for v, r in zip(velocity, residual, strict=True)])
    finally:
        numba.set_num_threads(before)
    assert torch.equal(together, alone)


def test_illumination_is_the_energy_of_the_laplacian() -> None:
    for survey, dtype, allowed in ((SMALL, torch.float64, 1e-12), (MEDIUM, torch.float32, 1e-5)):
        velocity = random_map(survey, 8)
        expected = simulate_differentiably(velocity, survey)[1]
        gathers, illumination = illuminate(velocity.to(dtype), survey)
        assert difference(illumination, expected) < allowed
        assert difference(gathers, simulate(velocity, survey)) < allowed


def test_sponge_may_stand_on_its_own() -> None:
    velocity = random_map(SMALL, 10)
    assert torch.equal(simulate(velocity, SMALL, velocity.min()), simulate(velocity, SMALL))
    expected = simulate_differentiably(velocity, SMALL, slowest=900.0)[0]
    assert difference(simulate(velocity, SMALL, torch.tensor(900.0)), expected) < 1e-10


def test_a_batch_of_any_shape_and_type_has_its_gradient() -> None:
    velocity = torch.stack([random_map(SMALL, seed) for seed in range(4)]).reshape(2, 2, 1, *SMALL.grid)
    single = velocity.to(torch.bfloat16).requires_grad_()
    simulate(single, SMALL).sum().backward()
    assert single.grad is not None
    assert single.grad.shape == velocity.shape
    assert single.grad.dtype == torch.bfloat16


def test_second_derivative_is_refused() -> None:
    velocity = random_map(SMALL, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(simulate(velocity, SMALL).square().sum(), velocity, create_graph=True)
    with pytest.raises(UserError, match="no second derivative"):
        gradient.sum().backward()


def test_slowest_of_another_shape_or_sign_is_refused() -> None:
    velocity = random_map(SMALL, 0)
    with pytest.raises(UserError, match=r"slowest must be a tensor of shape \(\)"):
        simulate(velocity, SMALL, torch.ones(3))
    with pytest.raises(UserError, match="slowest must be positive"):
        simulate(velocity, SMALL, torch.tensor(-1.0))
    with pytest.raises(UserError, match="one device"):
        simulate(velocity, SMALL, torch.empty((), device="meta"))


def test_no_gradient_where_nothing_is_heard() -> None:
    """A record too short for any wave to reach a cell and come back does not depend on that cell."""
    survey = dataclasses.replace(OPENFWI, samples=150)
    velocity = torch.full(survey.grid, 2000.0)
    gradient = gradient_of(velocity, survey, torch.ones(survey.gathers_shape))
    assert np.count_nonzero(gradient[40:]) == 0
    assert gradient[1].abs().max() > 0
