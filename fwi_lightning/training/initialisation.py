"""Start a model from the weights of another run: `init=FILE`, or `init=FAMILY` for what `pretrain` has left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fwi_lightning.errors import UserError
from fwi_lightning.models import VelocityModel
from fwi_lightning.training.checkpoint import read_checkpoint, weights_of

PRETRAINED = Path("pretrained")
"""Folder that `pretrain` writes to and families are looked up in: FAMILY/MODEL.ckpt, or all/MODEL.ckpt."""

SCALE = "transform.scale"
"""Never loaded: a statistic of the data, not a weight. What weights were made for is input of unit scale, and the new
data has that with its own fit alone, however its amplitudes differ from those of the old."""

FAMILY_HEAD = "family_head."
"""Loaded only where its outputs are the same families."""


@dataclass(frozen=True)
class Matches:
    """Which tensors of a model came from a file.

    Attributes:
        file: The file.
        loaded: Names of those that did.
        new: Names of those that the file does not have.
        other_shape: Names of those that it has in another shape.
    """

    file: Path
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line, such as "142 of 170 tensors from FILE; new: net.up (26); other shape: net.stem (2)"."""
        total = len(self.loaded) + len(self.new) + len(self.other_shape)
        parts = [f"{len(self.loaded)} of {total} tensors from {self.file}"]
        for title, names in (("new", self.new), ("other shape", self.other_shape)):
            if names:
                parts.append(f"{title}: {', '.join(f'{name} ({count})' for name, count in _by_module(names).items())}")
        return "; ".join(parts)


def _by_module(names: Iterable[str]) -> Counter[str]:
    """How many tensors each part of the model has: "projector", or "net.stem" inside the network."""
    return Counter(".".join(name.split(".")[: 2 if name.startswith("net.") else 1]) for name in names)


def find_weights(init: str | Path, model: str, folder: Path = PRETRAINED) -> Path:
    """The file that `init` means.

    Args:
        init: A checkpoint's path, or the name of a family, or "all".
        model: The choice of `model=`.
        folder: Where families are looked up. Default `PRETRAINED`.

    Raises:
        UserError: If there is no such file.
    """
    path = Path(str(init))
    if path.is_file():
        return path
    if path.suffix or len(path.parts) != 1:
        raise UserError(f"init={init} is not a file: give a checkpoint of this project, a family, or all.")
    found = folder / path / f"{model}.ckpt"
    if not found.is_file():
        there = ", ".join(map(str, sorted(folder.glob("*/*.ckpt")))) or "nothing yet"
        raise UserError(
            f"init={init} means {found}, which does not exist (there is {there}): make it with python -m fwi_lightning "
            f"pretrain model={model}, or give init= a file."
        )
    return found


@torch.no_grad()
def initialise(model: VelocityModel, path: Path) -> Matches:
    """Load every tensor whose name and shape agree with the model's; the others stay as they are.

    Args:
        model: The model; its transform keeps the scale that it has.
        path: A checkpoint of this project, whole or with some of the weights.

    Returns:
        What was loaded and what was not.

    Raises:
        UserError: If the file is missing, is not ours, is of records of another length, or no tensor agrees.
    """
    checkpoint = read_checkpoint(path, "init")
    weights, own = weights_of(checkpoint), model.state_dict()
    if SCALE in weights and weights[SCALE].shape != own[SCALE].shape:
        raise UserError(
            f"init={path} reads records of {len(weights[SCALE])} samples, this model {len(own[SCALE])}: use the same "
            "physics.samples, physics.time_step and model.time_step, or other weights."
        )
    if list(checkpoint["hyper_parameters"].get("families", ())) != list(model.families):
        weights = {name: value for name, value in weights.items() if not name.startswith(FAMILY_HEAD)}
    matches = Matches(path)
    for name, value in own.items():
        if name == SCALE:
            continue
        if name not in weights:
            matches.new.append(name)
        elif weights[name].shape != value.shape:
            matches.other_shape.append(name)
        else:
            value.copy_(weights[name])
            matches.loaded.append(name)
    if not matches.loaded:
        raise UserError(
            f"init={path} has no tensor in common with this model (it is of {_class_of(checkpoint)}): choose the model "
            "that it was made with, or other weights."
        )
    return matches


def _class_of(checkpoint: dict) -> str:
    return str(checkpoint["hyper_parameters"]["model"].get("_target_")).rpartition(".")[2]
