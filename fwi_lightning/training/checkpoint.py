"""From a checkpoint file to a model that predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.config import build, find_class
from fwi_lightning.errors import UserError
from fwi_lightning.models import Refiner, VelocityModel

PREFIX = "model."
"""Where the model's weights stand in the state of every LightningModule here."""

TRAINED = "trained"
"""Where the checkpoint of a self-supervised run, in which a part of the model lies idle, lists the rest."""

SUPERVISED = "supervised"
"""The task of a training: gathers to velocity."""


def read_checkpoint(path: str | Path, setting: str = "ckpt") -> dict[str, Any]:
    """The contents of a checkpoint of this project, without running any code that it may carry.

    Args:
        path: File written by a training run, such as `runs/.../checkpoints/best.ckpt`, or by a pretraining.
        setting: The setting that gave the path, for the message. Default "ckpt".

    Returns:
        Lightning's dict, with at least "state_dict" and "hyper_parameters".

    Raises:
        UserError: If the file is missing, is not a checkpoint, or is one of another program.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file: give {setting}= a checkpoint, such as RUN/checkpoints/best.ckpt.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a text, a picture or half a file comes upon
        raise UserError(
            f"{path} is not a checkpoint that can be read: give {setting}= a file that train.py wrote, such as "
            "RUN/checkpoints/best.ckpt."
        ) from error
    parameters = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if not {"model", "survey"} <= set(parameters) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is a checkpoint of another program: give {setting}= a file that train.py wrote.")
    return checkpoint


def task_of(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint's run had to learn: `SUPERVISED`, or a self-supervised task of `masks.TASKS`."""
    return str(checkpoint["hyper_parameters"].get("task", SUPERVISED))


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint that were trained, by their names in the model."""
    state = {
        key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)
    }
    return {name: state[name] for name in checkpoint.get(TRAINED, state)}


def build_model(config: Mapping[str, Any], survey: Mapping[str, Any], families: Sequence[str]) -> VelocityModel:
    """The model of a configuration, with new weights.

    Args:
        config: Settings with `_target_`, as in conf/model.
        survey: The survey as a dict.
        families: Names of the families, for a family head.

    Raises:
        UserError: If a setting is unknown or out of range, or the class is no model.
    """
    if not issubclass(find_class(config.get("_target_")), VelocityModel):
        raise UserError(f"model._target_={config['_target_']} is not a model: choose one with model=NAME.")
    model: VelocityModel = build(config, survey=survey, families=list(families))
    return model


def load_model(path: str | Path, device: str | torch.device = "cpu", setting: str = "ckpt") -> VelocityModel:
    """The model of a checkpoint, ready to predict.

    Args:
        path: File written by a training run.
        device: Where the model shall live. Default "cpu".
        setting: The setting that gave the path, for the message. Default "ckpt".

    Returns:
        The model in evaluation mode; `model.predict(gathers)` gives velocity in m/s.

    Raises:
        UserError: If the file is missing or is not a checkpoint of this project.
    """
    checkpoint = read_checkpoint(path, setting)
    if task_of(checkpoint) != SUPERVISED:
        raise UserError(f"{path} is of a pretraining and makes no maps: train a model from it with init={path}.")
    model = _rebuild(checkpoint, path)
    if isinstance(model, Refiner):
        raise UserError(
            f"{path} is a refiner, which corrects the maps of another model: give {setting}= that model, and use "
            f"the refiner with inference.refiner.ckpt={path}."
        )
    return model.eval().to(device)


def load_refiner(path: str | Path, device: str | torch.device = "cpu") -> Refiner:
    """The refiner of a checkpoint.

    Args:
        path: File written by `python -m fwi_lightning refiner`.
        device: Where it shall live. Default "cpu".

    Returns:
        The refiner in evaluation mode.

    Raises:
        UserError: If the file is missing or is no refiner.
    """
    refiner = _rebuild(read_checkpoint(path, "inference.refiner.ckpt"), path)
    if not isinstance(refiner, Refiner):
        raise UserError(
            f"{path} is no refiner: give inference.refiner.ckpt= a file that python -m fwi_lightning refiner wrote."
        )
    return refiner.eval().to(device)


def _rebuild(checkpoint: Mapping[str, Any], path: str | Path) -> VelocityModel:
    """The model that a checkpoint describes, with its weights."""
    parameters = checkpoint["hyper_parameters"]
    config = {
        name: value for name, value in parameters["model"].items() if name != "pretrained"
    }  # the file may be gone
    model = build_model(config, parameters["survey"], parameters["families"])
    try:
        model.load_state_dict(weights_of(checkpoint))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path} does not fit the model that it names ({reason}): it was changed or cut.") from error
    return model
