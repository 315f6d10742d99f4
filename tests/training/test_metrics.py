import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from fwi_lightning.geology.boundaries import BOUNDARY_JUMP, boundaries
from fwi_lightning.training.metrics import boundary_overlap, crf_energy, score_samples, structural_similarity
from fwi_lightning.training.scores import VelocityScores


def random_maps(count: int, seed: int = 0) -> torch.Tensor:
    """Blocky maps: layers at random depths with random velocities, a fault in the middle."""
    generator = np.random.default_rng(seed)
    maps = np.zeros((count, 1, 70, 70), np.float32)
    for sample in maps[:, 0]:
        depths = np.sort(generator.choice(np.arange(5, 65), 4, replace=False))
        values = generator.integers(1500, 4500, 5)
        for column in range(70):
            shift = 6 if column > 35 else 0
            sample[:, column] = values[np.searchsorted(depths + shift, np.arange(70), side="right")]
    return torch.from_numpy(maps)


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. (2004) written with scipy, zeros outside, on labels scaled to [0, 1]."""
    x, y = (v.astype(np.float64) / 3000 - 0.5 for v in (x, y))
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window /= window.sum()

    def blur(image):
        once = correlate1d(image, window, axis=0, mode="constant")
        return correlate1d(once, window, axis=1, mode="constant")

    mx, my = blur(x), blur(y)
    sxx, syy, sxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    ssim = (2 * mx * my + 1e-4) * (2 * sxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (sxx + syy + 9e-4))
    return float(ssim.mean())


def reference_boundary_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Cell by cell, as the definition reads."""

    def marked(v):
        found = set()
        for z in range(v.shape[0]):
            for x in range(v.shape[1]):
                for dz, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    a, b = z + dz, x + dx
                    inside = 0 <= a < v.shape[0] and 0 <= b < v.shape[1]
                    if inside and abs(float(v[z, x]) - float(v[a, b])) > BOUNDARY_JUMP:
                        found.add((z, x))
        return found

    def near(cell, cells):
        return any((cell[0] + i, cell[1] + j) in cells for i in (-1, 0, 1) for j in (-1, 0, 1))

    p, t = marked(prediction), marked(truth)
    hits_p, hits_t = sum(near(c, t) for c in p), sum(near(c, p) for c in t)
    both = (hits_p + hits_t) / 2
    union = both + len(p) - hits_p + len(t) - hits_t
    return both / union if union else 1.0


@pytest.fixture(scope="module")
def pair():
    truth = random_maps(6)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) * 30
    return torch.roll(truth, 2, dims=2) + noise, truth


def test_ssim_agrees_with_an_independent_version(pair):
    expected = [reference_ssim(p[0].numpy(), t[0].numpy()) for p, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(structural_similarity(*pair).numpy(), expected, atol=1e-10)


def test_boundary_iou_agrees_with_the_definition_cell_by_cell(pair):
    expected = [reference_boundary_iou(p[0].numpy(), t[0].numpy()) for p, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(score_samples(*pair)["boundary_iou"].numpy(), expected, atol=1e-12)


def test_equal_maps_score_perfectly():
    maps = random_maps(3)
    scores = score_samples(maps, maps)
    assert scores["mae"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(scores["ssim"], 1.0, atol=1e-12)
    assert scores["boundary_iou"].tolist() == [1, 1, 1]


def test_boundary_one_cell_off_counts_as_found_and_three_off_does_not():
    truth = torch.full((1, 1, 70, 70), 2000.0)
    truth[:, :, 30:] = 3000.0
    assert boundaries(truth)[0, 0, :, 0].nonzero().flatten().tolist() == [29, 30]
    assert score_samples(torch.roll(truth, 1, 2)[:, :, 1:], truth[:, :, 1:])["boundary_iou"] == 1
    far = torch.full_like(truth, 2000.0)
    far[:, :, 35:] = 3000.0
    assert score_samples(far, truth)["boundary_iou"] == 0


def test_a_jump_at_the_threshold_is_not_a_boundary():
    truth = torch.full((1, 1, 70, 70), 2000.0)
    truth[:, :, 30:] = 2000.0 + BOUNDARY_JUMP
    assert not boundaries(truth).any()
    assert [value.item() for value in boundary_overlap(truth, truth)] == [0, 0]
    assert score_samples(truth, truth)["boundary_iou"] == 1


def test_scores_do_not_depend_on_the_batches_and_families_add_up(pair):
    prediction, truth = pair
    family = torch.tensor([0, 1, 1, 0, 2, 2])
    whole, parts = VelocityScores("abcd"), VelocityScores("abcd")
    whole.update(prediction, truth, family)
    for rows in ([5, 0], [1], [4, 3, 2]):
        parts.update(prediction[rows], truth[rows], family[rows])
    for name, value in whole.compute().items():
        assert parts.compute()[name].item() == pytest.approx(value.item(), rel=1e-12)
    table = whole.per_family()
    assert list(table) == ["a", "b", "c"]
    assert all(row["samples"] == 2 for row in table.values())
    assert np.mean([row["mae"] for row in table.values()]) == pytest.approx(whole.compute()["mae"].item())
    errors = (prediction - truth).numpy().astype(np.float64)
    assert whole.compute()["mae"].item() == pytest.approx(np.abs(errors).mean())
    assert whole.compute()["rmse"].item() == pytest.approx(np.sqrt((errors**2).mean()))
    assert table["a"]["rmse"] == pytest.approx(np.sqrt((errors[[0, 3]] ** 2).mean()))


def test_crf_energy_is_that_of_each_pair_of_neighbours():
    """Written pair by pair: Charbonnier of the step, tied the less the larger the step is, per cell and (100 m/s)^2."""
    maps = torch.from_numpy(np.random.default_rng(0).normal(2500, 80, (2, 1, 4, 5)))
    expected = []
    for depth, width, sample in ((4, 5, sample) for sample in maps[:, 0].numpy()):
        total = 0.0
        for row in range(depth):
            for column in range(width):
                for other in ((row + 1, column), (row, column + 1)):
                    if other[0] < depth and other[1] < width:
                        step = sample[row, column] - sample[other]
                        tie = 1 / (1 + (step / 100) ** 2)
                        total += tie * 2 * 20**2 * (np.sqrt(1 + (step / 20) ** 2) - 1)
        expected.append(total / (depth * width * 100**2))
    assert crf_energy(maps).tolist() == pytest.approx(expected, rel=1e-4)


def test_crf_energy_charges_ripples_and_hardly_boundaries():
    layers = random_maps(1)
    ripple = layers + 80 * torch.sin(torch.arange(70.0) * 2)
    assert crf_energy(torch.full((1, 1, 70, 70), 2000.0)).item() == 0
    assert crf_energy(ripple) > 5 * crf_energy(layers)
