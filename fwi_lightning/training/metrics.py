"""How good a velocity map is: MAE, RMSE, SSIM and boundary IoU of each sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fwi_lightning.geology.boundaries import boundaries
from fwi_lightning.models import normalise_velocity
from fwi_lightning.models.crf import ContinuousCRF

BOUNDARY_TOLERANCE = 1
"""Cells by which a predicted boundary may miss the true one."""

SCORES = ("mae", "rmse", "ssim", "boundary_iou")
"""Names of the scores, in the order of tables."""


def structural_similarity(prediction: Tensor, truth: Tensor) -> Tensor:
    """SSIM as published for OpenFWI: labels scaled to [0, 1], Gaussian window of 11 cells, zeros outside the map.

    The benchmark scales labels to [-1, 1], computes x / 2 + 0.5 for both maps and takes Wang et al. (2004,
    doi:10.1109/TIP.2003.819861) with sigma 1.5, K1 = 0.01, K2 = 0.03 and a range of 1; the map is averaged with its
    zero-padded rim.

    Args:
        prediction: (batch, 1, depth, width) in m/s.
        truth: The same shape, m/s.

    Returns:
        (batch,) between -1 and 1; 1 for equal maps.
    """
    x, y = (normalise_velocity(v.double()) / 2 + 0.5 for v in (prediction, truth))
    offsets = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    profile = torch.exp(-(offsets**2) / (2 * 1.5**2))
    profile = profile / profile.sum()

    def smooth(image: Tensor) -> Tensor:
        image = functional.conv2d(image, profile.view(1, 1, 11, 1), padding=(5, 0))
        return functional.conv2d(image, profile.view(1, 1, 1, 11), padding=(0, 5))

    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return similarity.mean(dim=(1, 2, 3))


def boundary_overlap(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of predicted and true boundaries, in cells, with a tolerance.

    A predicted boundary cell is a hit if a true one lies within `BOUNDARY_TOLERANCE` cells, and the other way round.
    The intersection is the mean of both hit counts; the union adds the cells of either side without a partner. The
    idea joins the Boundary IoU of Cheng et al. (2021, arXiv:2103.16562) and the distance tolerance of boundary
    benchmarks (Martin et al., 2004, doi:10.1109/TPAMI.2004.1273918).

    Args:
        prediction: (batch, 1, depth, width) in m/s.
        truth: The same shape, m/s.

    Returns:
        Two tensors (batch,). Both are zero where neither map has a boundary.
    """
    predicted, true = boundaries(prediction), boundaries(truth)
    window = 2 * BOUNDARY_TOLERANCE + 1

    def widen(mask: Tensor) -> Tensor:
        return functional.max_pool2d(mask.float(), window, stride=1, padding=BOUNDARY_TOLERANCE) > 0

    cells = (1, 2, 3)
    hits_predicted = (predicted & widen(true)).sum(cells)
    hits_true = (true & widen(predicted)).sum(cells)
    intersection = (hits_predicted + hits_true) / 2
    union = intersection + (predicted.sum(cells) - hits_predicted) + (true.sum(cells) - hits_true)
    return intersection, union


def score_samples(prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Every score of every sample.

    Args:
        prediction: (batch, 1, depth, width) in m/s.
        truth: The same shape, m/s.

    Returns:
        `SCORES` to tensors (batch,): mae and rmse in m/s, ssim and boundary_iou without unit. Two maps without any
        boundary agree: boundary_iou 1.
    """
    error = (prediction - truth).double()
    intersection, union = boundary_overlap(prediction, truth)
    return {
        "mae": error.abs().mean(dim=(1, 2, 3)),
        "rmse": error.square().mean(dim=(1, 2, 3)).sqrt(),
        "ssim": structural_similarity(prediction, truth),
        "boundary_iou": torch.where(union > 0, intersection / union.clamp_min(1), 1.0),
    }


@torch.no_grad()
def crf_energy(prediction: Tensor) -> Tensor:
    """Energy of maps in a continuous random field whose ties follow their own boundaries, (batch,).

    It needs no truth: it is what `ContinuousCRF` with its default settings charges a map for being rough between its
    boundaries, in units of (100 m/s)^2 a cell. 0 for a uniform map; a boundary between two layers costs little, a
    ripple of as many m/s spread over all cells much.

    Args:
        prediction: (batch, 1, depth, width) in m/s.
    """
    return ContinuousCRF().to(prediction.device).energy(prediction.float())
