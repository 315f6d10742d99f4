"""Gathers, prediction, truth and error of a few validation samples, for a dashboard."""

from __future__ import annotations

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.errors import UserError
from fwi_lightning.figures.inversion import inversion


class Pictures(Callback):
    """Send pictures of the same validation samples to every logger that shows pictures; nothing without one.

    Nothing either with trainer=fsdp, where no device has the whole model.

    Drawn at the start of a validation, with the weights that it is of; after `ema` in the configuration.

    Args:
        samples: How many, evenly spread over the fold. Default 4.
        every: Validations from one picture to the next. Default 1.

    Raises:
        UserError: If a number is below 1.
    """

    def __init__(self, samples: int = 4, every: int = 1) -> None:
        for name, value in (("samples", samples), ("every", every)):
            if value < 1:
                raise UserError(f"callbacks.pictures.{name} must be at least 1, got {value}.")
        self.samples, self.every = samples, every
        self._validations = 0

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw and send. Lightning calls this."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
        self._validations += 1
        due = (self._validations - 1) % self.every == 0 and not trainer.sanity_checking
        if isinstance(trainer.strategy, ModelParallelStrategy):
            return  # no device has the whole model
        if not (loggers and due and trainer.is_global_zero):
            return
        data = trainer.datamodule.val_dataset  # type: ignore[attr-defined]
        model = pl_module.model
        for number, place in enumerate(np.unique(np.linspace(0, len(data) - 1, self.samples).astype(int)).tolist()):
            sample, (part, row) = data[place], data.locate(place)
            prediction = model.predict(sample["gathers"])  # type: ignore[operator, union-attr]
            figure = inversion(
                sample["gathers"].numpy(),
                prediction.numpy(),
                sample["velocity"].numpy(),
                model.survey,  # type: ignore[union-attr, arg-type]
                f"{part.family}, {part.name} #{row}, step {trainer.global_step}",
            )
            for logger in loggers:
                _send(logger, f"samples/{number}", pixels(figure), trainer.global_step)


def pixels(figure: Figure, dpi: int = 80) -> NDArray[np.uint8]:
    """A figure as (rows, columns, 3)."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _send(logger: Logger, name: str, image: NDArray[np.uint8], step: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [image], step=step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step, dataformats="HWC")
