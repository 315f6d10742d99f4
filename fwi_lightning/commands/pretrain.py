"""`python -m fwi_lightning pretrain`: weights for models to begin with, of one family or of all."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import lightning
import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import default_collate

from fwi_lightning.commands.fitting import (
    Run,
    begin,
    fit,
    introduce,
    make_inversion,
    make_trainer,
    read_data,
    start_model,
)
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.score import best_score
from fwi_lightning.config import build, plain
from fwi_lightning.errors import UserError
from fwi_lightning.figures.reconstructions import Guess, reconstructions
from fwi_lightning.report.files import write_bytes
from fwi_lightning.training.checkpoint import PREFIX, SUPERVISED
from fwi_lightning.training.losses import needs_illumination
from fwi_lightning.training.masks import TASKS
from fwi_lightning.training.module import InversionModule
from fwi_lightning.training.pretraining import PretrainingModule, pretrained_weights

SHOWN = 3
"""Validation samples that the figure shows."""


def main(config: DictConfig) -> float | None:
    """Pretrain a model and write its weights.

    Args:
        config: conf/pretrain.yaml.

    Returns:
        The score that a sweep goes by, see `best_score`.

    Raises:
        UserError: If a setting, the data or the checkpoint to go on from does not fit.
    """
    tasks = (*TASKS, SUPERVISED)
    if config.task not in tasks:
        raise UserError(f"task must be {', '.join(tasks[:-1])} or {tasks[-1]}, got {config.task!r}.")
    writable_folder(config.output)
    run = begin(config)
    config = run.config
    run.data.needs_illumination = config.task == SUPERVISED and needs_illumination(build(config.loss))
    read_data(run)
    module = make_inversion(run) if config.task == SUPERVISED else _make_pretraining(run)
    trainer = make_trainer(run, module)
    start_model(run, module.model)
    introduce(run, module, f", {config.task}")
    fit(trainer, module, run, "python -m fwi_lightning pretrain")
    if trainer.is_global_zero:
        _finish(run, trainer, module)
    return best_score(config, run.folder)


def _make_pretraining(run: Run) -> PretrainingModule:
    config = run.config
    return PretrainingModule(
        model=plain(config.model),
        survey=run.survey.to_dict(),
        task=config.task,
        share=config.share,
        optimizer=plain(config.optimizer),
        scheduler=plain(config.scheduler),
        families=run.data.families,
    )


def _finish(run: Run, trainer: lightning.Trainer, module: InversionModule | PretrainingModule) -> None:
    """Write the weights and the figure, and say how to go on."""
    if isinstance(module, PretrainingModule):
        path = run.folder / "figures" / "reconstruction.png"
        write_bytes(path, _draw(run, module))
        print(path)
    family = run.data.families[0] if len(run.data.families) == 1 else "all"
    path = Path(run.config.output) / family / f"{run.model_name}.ckpt"
    write_bytes(path, _weights(run, module))
    score = "val/mae" if run.config.task == SUPERVISED else "val/reconstruction"
    if score in trainer.callback_metrics:
        print(f"{score} {float(trainer.callback_metrics[score]):.4g}")
    print(f"{path}; to begin with it: python train.py model={run.model_name} init={path}")


def _weights(run: Run, module: InversionModule | PretrainingModule) -> bytes:
    """The pretrained part of a model as a checkpoint of plain tensors, numbers and names."""
    model = module.model
    trained = (
        module.trained if isinstance(module, PretrainingModule) else {name for name, _ in model.named_parameters()}
    )
    content = io.BytesIO()
    checkpoint = {
        "state_dict": {f"{PREFIX}{name}": value for name, value in pretrained_weights(model, trained).items()},
        "hyper_parameters": {
            "model": plain(run.config.model),
            "survey": run.survey.to_dict(),
            "families": list(run.data.families),
            "task": str(run.config.task),
        },
    }
    torch.save(checkpoint, content)
    return content.getvalue()


@torch.no_grad()
def _draw(run: Run, module: PretrainingModule) -> bytes:
    """A few validation samples, evenly spread: their records, what was hidden and what was put there."""
    dataset = run.data.val_dataset
    places = np.unique(np.linspace(0, len(dataset) - 1, SHOWN).astype(int)).tolist()
    module.cpu().eval()
    filled = module.fill(default_collate([dataset[place] for place in places]))
    arrays = (filled.records.numpy(), filled.hidden.numpy(), filled.guess.numpy())
    names = [f"{dataset.locate(place)[0].family}, loss {filled.error[row]:.2f}" for row, place in enumerate(places)]
    transform = module.model.transform
    survey = dataclasses.replace(run.survey, samples=transform.samples, time_step=transform.step * run.survey.time_step)
    content = io.BytesIO()
    samples = [Guess(*sample) for sample in zip(names, *arrays, strict=True)]
    reconstructions(samples, survey).savefig(content, format="png", dpi=110)
    return content.getvalue()
