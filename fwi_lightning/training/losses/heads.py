"""The losses of a model's optional heads, added to whatever the map's loss is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from fwi_lightning.models import Answer
from fwi_lightning.models.scale import VELOCITY_HALF_RANGE


def head_losses(answer: Answer, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The loss of each head that has answered.

    Args:
        answer: What the model said of the batch.
        batch: Its velocity (batch, 1, depth, width) in m/s and family (batch,).

    Returns:
        "uncertainty": mean negative log-likelihood of the true map under a Laplace distribution around the predicted
        one, |v - v_true| / b + log 2b, on the label scale (Kendall and Gal, 2017, arXiv:1703.04977). The map itself
        gets no gradient from it: it is not to trade its error for a wide scale. "family": cross-entropy in nats.
        "inverse": mean inconsistency of an invertible model, which makes features and map the same thing.
    """
    losses = {}
    if answer.scale is not None:
        error = (answer.velocity.detach() - batch["velocity"]).abs()
        losses["uncertainty"] = (error / answer.scale + (2 * answer.scale / VELOCITY_HALF_RANGE).log()).mean()
    if answer.family is not None:
        losses["family"] = functional.cross_entropy(answer.family, batch["family"])
    if answer.inconsistency is not None:
        losses["inverse"] = answer.inconsistency.mean()
    return losses
