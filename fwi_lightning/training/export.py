"""A checkpoint to hand on: the weights in half precision, and nothing of the training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.training.checkpoint import PREFIX, SUPERVISED, read_checkpoint, task_of, weights_of

KEPT = ("model", "survey", "families")
"""What of a run's settings a model is rebuilt from."""


def export(path: str | Path, output: str | Path) -> dict[str, Any]:
    """Write the model of a checkpoint so that it takes a tenth of the space; `load_model` reads it as any other.

    Kernels and matrices are rounded to float16, one part in 2048 of each weight. Biases, norms and the scale of the
    input, which are few, stay as they are. The optimiser, the schedule and the state of the run are left out: a run
    cannot go on from it, but `init=` begins one with it.

    Args:
        path: Checkpoint of a training run.
        output: File to write; it is there whole or not at all.

    Returns:
        What the file holds.

    Raises:
        UserError: If the checkpoint is none, a pretraining's, has weights that float16 cannot hold, or the file cannot
            be written.
    """
    checkpoint, output = read_checkpoint(path), Path(output)
    if task_of(checkpoint) != SUPERVISED:
        raise UserError(f"{path} is of a pretraining and makes no maps: export a model that was trained from it.")
    parameters = checkpoint["hyper_parameters"]
    model = {name: value for name, value in parameters["model"].items() if name != "pretrained"}
    content = {
        "hyper_parameters": {name: parameters[name] for name in KEPT} | {"model": model},
        "state_dict": {PREFIX + name: _rounded(name, value) for name, value in weights_of(checkpoint).items()},
        "global_step": checkpoint.get("global_step", 0),
        "epoch": checkpoint.get("epoch", 0),
    }
    write_checkpoint(content, output)
    return content


def write_checkpoint(content: Mapping[str, Any], output: Path) -> None:
    """Save a checkpoint, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(content), temporary)
        temporary.replace(output)
    except (OSError, RuntimeError) as error:  # torch raises the latter where a folder cannot be written
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{output} cannot be written ({reason}): set output to a file in a folder of yours.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _rounded(name: str, value: Tensor) -> Tensor:
    """A weight as it is written."""
    if value.ndim < 2 or value.dtype != torch.float32 or name.startswith("transform."):
        return value.clone()
    half = value.half()
    if not half.isfinite().all():
        raise UserError(f"the weights {name} do not fit into float16: the training has diverged, take another one.")
    return half
