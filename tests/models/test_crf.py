"""The random field against a dense solution, a general-purpose optimiser, and finite differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fwi_lightning.errors import UserError
from fwi_lightning.models.crf import ContinuousCRF, differences, energy, minimise

SHAPE = (2, 1, 5, 6)


def problem(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """Prediction, unary weights and ties in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    batch, _, depth, width = shape
    ties = (3 * draw(batch, 1, depth - 1, width), 3 * draw(batch, 1, depth, width - 1))
    return 2 * draw(*shape), 0.5 + draw(*shape), ties


def dense(prediction: np.ndarray, unary: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The quadratic form by a full matrix, written pair by pair."""
    depth, width = prediction.shape
    matrix = np.diag(unary.ravel())
    for row in range(depth):
        for column in range(width):
            here = row * width + column
            pairs = [(here + width, down[row, column])] if row + 1 < depth else []
            pairs += [(here + 1, across[row, column])] if column + 1 < width else []
            for there, tie in pairs:
                matrix[here, here] += tie
                matrix[there, there] += tie
                matrix[here, there] -= tie
                matrix[there, here] -= tie
    return np.linalg.solve(matrix, (unary * prediction).ravel()).reshape(depth, width)


def test_the_quadratic_form_is_the_dense_solution():
    prediction, unary, ties = problem()
    found = minimise(prediction, unary, ties, tolerance=1e-10)
    for sample in range(len(prediction)):
        expected = dense(*(x[sample, 0].numpy() for x in (prediction, unary, *ties)))
        np.testing.assert_allclose(found[sample, 0], expected, rtol=1e-8)
    assert not torch.allclose(found, prediction, rtol=0.01)


def test_the_robust_form_is_what_a_general_optimiser_finds():
    prediction, unary, ties = problem(1)
    threshold = torch.tensor(0.05, dtype=torch.float64)
    found = minimise(prediction, unary, ties, threshold, tolerance=1e-9)

    def cost(x: np.ndarray) -> float:
        v, d, u = (np.asarray(y).reshape(SHAPE[2:]) for y in (x, prediction[0], unary[0]))
        steps = np.diff(v, axis=0), np.diff(v, axis=1)
        pairs = [
            w[0, 0].numpy() * 2 * 0.05**2 * (np.sqrt(1 + (s / 0.05) ** 2) - 1) for w, s in zip(ties, steps, strict=True)
        ]
        return float((u * (v - d) ** 2).sum() + sum(pair.sum() for pair in pairs))

    best = minimize(cost, prediction[0].numpy().ravel(), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(found[0].numpy().ravel(), best.x, atol=2e-5)
    assert energy(found, prediction, unary, ties, threshold)[0].item() == pytest.approx(best.fun, rel=1e-8)


@pytest.mark.parametrize("robust", [False, True])
def test_gradients_are_those_of_finite_differences(robust):
    prediction, unary, ties = problem(2, (1, 1, 2, 3))
    threshold = torch.tensor(0.3, dtype=torch.float64, requires_grad=True) if robust else None
    given = [x.requires_grad_() for x in (prediction, unary, *ties)]

    def solve(d, u, down, across, *rest):
        return minimise(d, u, (down, across), *rest, tolerance=1e-12)

    inputs = (*given, threshold) if robust else tuple(given)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-6, rtol=1e-4)


def blocky(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two layers with a jump of 1000 m/s, and the same with noise of 60 m/s."""
    truth = torch.full((1, 1, 30, 30), 2000.0)
    truth[:, :, 14:] = 3000.0
    return truth, truth + 60 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("robust", [False, True])
def test_noise_goes_and_the_boundary_stays(robust):
    truth, noisy = blocky()
    found = ContinuousCRF(robust, tie=3.0)(noisy).detach()
    assert (found - truth).abs().mean() < 0.35 * (noisy - truth).abs().mean()
    assert (found[:, :, 14] - found[:, :, 13]).mean() > 850
    assert found.mean().item() == pytest.approx(noisy.mean().item(), abs=0.1), "ties move velocity, they make none"


def test_cells_that_are_sure_of_themselves_stay():
    _, noisy = blocky()
    scale = torch.full_like(noisy, 100.0)
    scale[..., :15] = 10.0
    moved = (ContinuousCRF(tie=2.0)(noisy, scale) - noisy).abs().detach()
    assert moved[..., :13].mean() < 0.2 * moved[..., 17:].mean()


def test_the_answer_has_the_least_energy_and_a_flat_map_none():
    _, noisy = blocky()
    crf = ContinuousCRF(tie=2.0)
    with torch.no_grad():
        found = crf(noisy)
        least = crf.energy(found, noisy)
        assert least < crf.energy(noisy, noisy)
        generator = torch.Generator().manual_seed(1)
        for _ in range(5):
            assert least < crf.energy(found + torch.randn(found.shape, generator=generator), noisy)
        assert crf.energy(torch.full((1, 1, 9, 9), 2500.0)).item() == 0


def test_it_learns_as_a_layer():
    truth, noisy = blocky(3)
    crf = ContinuousCRF(tie=-1.0, boundary=0.2)
    optimiser = torch.optim.Adam(crf.parameters(), lr=0.3)
    errors = []
    for _ in range(25):
        error = (crf(noisy) - truth).abs().mean()
        errors.append(error.item())
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    assert errors[-1] < 0.5 * errors[0]
    _, other = blocky(4)
    assert (crf(other) - truth).abs().mean() < 0.5 * (other - truth).abs().mean()


def test_each_sample_is_solved_for_itself():
    _, noisy = blocky()
    batch = torch.cat([noisy, noisy / 2, torch.full_like(noisy, 3000.0)])
    with torch.no_grad():
        found = ContinuousCRF(tie=2.0)(batch)
        alone = ContinuousCRF(tie=2.0)(noisy)
    torch.testing.assert_close(found[:1], alone, atol=0.5, rtol=0)
    assert (found[2] == 3000).all()


def test_the_step_to_the_next_cell():
    down, across = differences(torch.arange(6.0).reshape(1, 1, 2, 3))
    assert down.unique().tolist() == [3.0]
    assert across.unique().tolist() == [1.0]


def test_settings_out_of_range():
    with pytest.raises(UserError, match="threshold=-1"):
        ContinuousCRF(threshold=-1)
