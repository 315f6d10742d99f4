"""`python train.py`: train a model, test its best checkpoint, write the report."""

from __future__ import annotations

import sys
import time

from omegaconf import DictConfig

from fwi_lightning.commands.evaluation import evaluate
from fwi_lightning.commands.fitting import begin, fit, introduce, make_inversion, make_trainer, read_data, start_model
from fwi_lightning.commands.score import best_score
from fwi_lightning.config import build
from fwi_lightning.data.augment import Corruption, Monai
from fwi_lightning.training.losses import needs_illumination, reads_record


def main(config: DictConfig) -> float | None:
    """Run one training from its configuration.

    Args:
        config: conf/train.yaml.

    Returns:
        The score that a sweep goes by, see `best_score`.

    Raises:
        UserError: If a setting, the data, the weights to start with or the checkpoint to go on from does not fit.
    """
    run = begin(config)
    loss = build(run.config.loss)
    run.data.needs_illumination = needs_illumination(loss)
    corrupting = any(isinstance(augmentation, Corruption | Monai) for augmentation in run.data.augmentations)
    if reads_record(loss) and corrupting:
        print(
            "warning: the loss compares simulated with corrupted records: leave out augment=corruption and "
            "data.transforms=monai.",
            file=sys.stderr,
        )
    read_data(run)
    module = make_inversion(run)
    trainer = make_trainer(run, module)
    start_model(run, module.model)
    introduce(run, module)
    begun = time.monotonic()
    fit(trainer, module, run, "python train.py")
    evaluate(trainer, module, run, seconds=time.monotonic() - begun)
    return best_score(run.config, run.folder)
