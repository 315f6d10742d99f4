"""Self-supervised pretraining: a model's encoder learns to fill in what is hidden of its gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from fwi_lightning.models import VelocityModel
from fwi_lightning.training.checkpoint import TRAINED, build_model
from fwi_lightning.training.masks import draw_masks, make_mask
from fwi_lightning.training.memory import Losses
from fwi_lightning.training.optimised import OptimisedModule

ROWS = 64
"""Rows of the image that a record is put together from, at most: each holds several samples of every trace."""

FLOOR = 1e-3
"""Least energy of a hidden part that errors are compared with, as a share of a record of unit scale."""


class Reconstruction(nn.Module):
    """Features of any number, channels and size to records: light, so that what there is to know is in the encoder.

    Each level is projected to a common width and brought to one image by bilinear interpolation; their sum and a
    learned image, which says where a pixel is, go through two convolutions of 1 x 1. A pixel holds a few samples of one
    receiver's trace of each shot.

    Args:
        channels: Channels of each level.
        shape: (shots, samples, receivers) out.
        width: The common width. Default 64.
    """

    def __init__(self, channels: Sequence[int], shape: tuple[int, int, int], width: int = 64) -> None:
        super().__init__()
        self.shots, self.samples, receivers = shape
        self.step = -(-self.samples // ROWS)
        self.image = (-(-self.samples // self.step), receivers)
        self.levels = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.position = nn.Parameter(0.02 * torch.randn(1, width, *self.image))
        self.body = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, self.shots * self.step, 1)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features (batch, channels, ...) of each level to records (batch, shots, samples, receivers)."""
        total: Tensor = self.position
        for project, level in zip(self.levels, features, strict=True):
            image = project(level[..., None] if level.ndim == 3 else level)  # tokens are a column
            total = total + functional.interpolate(image, size=self.image, mode="bilinear")
        records = self.body(total).unflatten(1, (self.shots, self.step)).transpose(2, 3).flatten(2, 3)
        return records[:, :, : self.samples]


class Filled(NamedTuple):
    """Records with a part hidden, and what was put there; each (batch, shots, samples, receivers).

    Attributes:
        records: What the model's transform makes of gathers.
        hidden: The hidden part, zero elsewhere.
        guess: The answer for that part, zero elsewhere.
        error: (batch,) squared error of the guess over the energy of the hidden part: 1 for a guess of zeros.
    """

    records: Tensor
    hidden: Tensor
    guess: Tensor
    error: Tensor


class PretrainingModule(OptimisedModule):
    """Pretrains a model's projector and encoder without labels, as a masked autoencoder.

    After He et al. (2022, arXiv:2111.06377). What the model's transform makes of the gathers, x, loses its part P x
    (see `masks`); projector and encoder read the rest; a decoder of its own answers y, and the loss is
    |P (y - x)|^2 / |P x|^2, mean over samples.
    Parameters that the encoder does not touch, such as the model's own decoder, stay as they are.

    Attributes:
        trained: Names of the model's parameters that take part, of frozen ones too.

    Args:
        model: Configuration of the model, with `_target_`.
        survey: The survey as a dict.
        task: "masked_traces" or "masked_spectra".
        share: Share of the traces, or of the wavelet's band, that is hidden, between 0 and 1.
        optimizer: Configuration of the optimiser.
        scheduler: Configuration of the learning-rate schedule, stepped after every batch; None keeps the rate.
        families: Names of the families, in the order of the numbers in a batch.

    Raises:
        UserError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        model: dict[str, Any],
        survey: dict[str, Any],
        task: str,
        share: float,
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
        families: Sequence[str],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.model: VelocityModel = build_model(model, survey, families)
        self.val_error = MeanMetric()
        self.mask = make_mask(task, share, self.model)
        self.trained, channels = freeze_all_but_the_encoder(self.model)
        shape = (self.model.survey.shots, self.model.transform.samples, self.model.survey.receivers)
        self.decoder = Reconstruction(channels, shape)

    def fill(self, batch: Mapping[str, Tensor], *key: int) -> Filled:
        """Hide a part of each sample and answer what it was.

        Args:
            batch: Its gathers (batch, shots, time, receivers) and index (batch,).
            *key: As `draw_masks`.
        """
        model, gathers = self.model, batch["gathers"]
        model.check(gathers)
        drawn = draw_masks(self.mask, batch["index"].tolist(), *key).to(gathers.device)
        records = model.transform(gathers)
        hidden = self.mask.hidden(records, drawn)
        features = model.net.encode(model.prepare(records - hidden, gathers))
        guess = self.mask.hidden(self.decoder(features), drawn)
        error, energy = (x.square().flatten(1).sum(dim=1) for x in (guess - hidden, hidden))
        # A sample that is silent, or nearly, must not drown the others.
        return Filled(records, hidden, guess, error / energy.clamp_min(FLOOR * records[0].numel()))

    def losses(self, batch: Mapping[str, Tensor]) -> Losses:
        """The loss of a batch; its masks are those of the epoch."""
        return self.fill(batch, self.current_epoch).error.mean(), {}

    def validation_names(self, illuminated: bool) -> list[str]:
        """What a validation logs, and a callback or a schedule may monitor; `illuminated` is ignored."""
        return ["val/reconstruction"]

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Add to the loss, on masks that are the same in every epoch."""
        self.val_error.update(self.fill(batch).error)

    def on_validation_epoch_end(self) -> None:
        """Log its mean over all samples of all devices."""
        self.log("val/reconstruction", self.val_error.compute(), prog_bar=True)
        self.val_error.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say, besides the random numbers, which of the model's tensors are pretrained."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[TRAINED] = list(pretrained_weights(self.model, self.trained))


def freeze_all_but_the_encoder(model: VelocityModel) -> tuple[set[str], list[int]]:
    """Freeze the parameters that features do not depend on: DDP waits for a gradient of every other.

    Args:
        model: The model; one backward pass of one sample tells.

    Returns:
        Names of the parameters that features depend on, of those frozen before too; channels of each level of features.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(True).eval()  # evaluation: a batch norm finds no spread in one sample, and learns none
    features = model.net.encode(model.read(torch.randn(1, *model.survey.gathers_shape)))
    torch.stack([level.square().mean() for level in features]).sum().backward()
    model.train()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(wanted[name] and name in touched)
    return touched, [level.shape[1] for level in features]


def pretrained_weights(model: VelocityModel, trained: set[str]) -> dict[str, Tensor]:
    """The weights worth keeping: the trained parameters, and the buffers that belong to them.

    A buffer belongs to its module, or, where that has no parameters, to the nearest around it that has.

    Args:
        model: The model.
        trained: Names of its parameters.

    Returns:
        Copies on the CPU, by their names in the model.
    """
    parameters = {name for name, _ in model.named_parameters()}

    def belongs(key: str) -> bool:
        if key in parameters:
            return key in trained
        owner, inside = key, set[str]()
        while owner and not inside:
            owner = owner.rpartition(".")[0]
            inside = {name for name in parameters if name.startswith(f"{owner}." if owner else "")}
        return bool(inside & trained)

    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items() if belongs(key)}
