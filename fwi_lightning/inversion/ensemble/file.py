"""The file of an ensemble: members by relative path, weights, the fitted networks; read without running its code."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import torch
import yaml

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.ensemble.blender import METHODS, Blender
from fwi_lightning.inversion.ensemble.features import PHYSICS
from fwi_lightning.inversion.ensemble.model import Ensemble, MemberFile, Members
from fwi_lightning.inversion.ensemble.weights import normalise
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_model as load_single
from fwi_lightning.training.checkpoint import read_checkpoint

VERSION = 1
"""Of the file's layout."""

MEMORY_MB = 4000.0
"""Weights that are kept in memory if the file does not say, MB."""

LISTS = (".yaml", ".yml")
"""Ends of ensembles written by hand."""


def load_model(path: str | Path, device: str | torch.device = "cpu") -> VelocityModel:
    """The model of a checkpoint or of an ensemble, ready to predict.

    Args:
        path: File written by a training run or by the command `ensemble`, or a list of members in YAML.
        device: Where the model shall live. Default "cpu".

    Returns:
        The model in evaluation mode; `model.predict(gathers)` gives velocity in m/s.

    Raises:
        UserError: If the file is missing or is neither.
    """
    path = Path(path)
    if path.suffix in LISTS:
        return _from_list(path, device)
    content = _peek(path)
    return load_single(path, device) if content is None else _from_content(path, content, device)


def write_ensemble(ensemble: Ensemble, path: Path) -> None:
    """Write an ensemble as one file, whole or not at all; members are named relative to its folder.

    Args:
        ensemble: The ensemble.
        path: Where to, usually OUTPUT/ensemble.ckpt.

    Raises:
        UserError: If the file cannot be written.
    """
    members = [
        {"path": _relative(file.path, path.parent), "group": file.group, "digest": file.digest}
        for file in ensemble.members.files
    ]
    content = {
        "ensemble": VERSION,
        "survey": ensemble.survey.to_dict(),
        "families": list(ensemble.families),
        "members": members,
        "physics": ensemble.physics,
        "source_velocity": ensemble.known.use,
        "memory_mb": float(ensemble.members.memory_mb),
        "blender": ensemble.blender.settings(),
        "state": ensemble.blender.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, so that both can be moved together."""
    return PurePosixPath(*Path(os.path.relpath(path.resolve(), folder.resolve())).parts).as_posix()


def _peek(path: Path) -> dict[str, Any] | None:
    """The content of an ensemble's file; None of anything else. Tensors are mapped, not read."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, BadZipFile, KeyError, ValueError):
        return None
    return content if isinstance(content, dict) and "ensemble" in content else None


def _from_content(path: Path, content: Mapping[str, Any], device: str | torch.device) -> Ensemble:
    if content["ensemble"] != VERSION:
        raise UserError(f"{path} is of another version of fwi-lightning: run `ensemble` again.")
    try:
        survey, families = Survey(**content["survey"]), [str(name) for name in content["families"]]
        files = [
            MemberFile(path.parent / str(entry["path"]), int(entry["group"]), str(entry["digest"]))
            for entry in content["members"]
        ]
        settings = dict(content["blender"])
        groups = len({file.group for file in files})
        if settings["members"] != groups or settings["families"] != len(families):
            raise ValueError("its members do not fit its weights")
        if settings["method"] not in METHODS or content["physics"] not in PHYSICS:
            raise ValueError("it names a method that there is not")
        blender = Blender(survey=survey, **settings)
        blender.load_state_dict(content["state"])
        members = Members(files, survey, float(content["memory_mb"]), device)
        return Ensemble(
            survey,
            members,
            blender,
            families,
            str(content["physics"]),
            source_velocity=str(content["source_velocity"]),
        ).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is no whole ensemble ({reason}): it was changed or cut, run `ensemble` again."
        ) from error


def _from_list(path: Path, device: str | torch.device) -> Ensemble:
    """An ensemble written by hand: `members`, paths relative to the file, and `weights`, equal if left out."""
    if not path.is_file():
        raise UserError(f"{path} is not a file: give ckpt= a checkpoint or an ensemble.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML ({str(error).splitlines()[0]}): write members: [CKPT, ...].") from error
    known = {"members", "weights", "memory_mb"}
    if not isinstance(content, dict) or not set(content) <= known:
        raise UserError(f"{path} must hold members: [CKPT, ...] and may hold weights and memory_mb, nothing else.")
    paths = content.get("members")
    if not isinstance(paths, list) or not paths or not all(isinstance(one, str) for one in paths):
        raise UserError(f"{path} names no members: write members: [CKPT, ...], paths relative to the file.")
    weights = content.get("weights", [1.0] * len(paths))
    numbers = isinstance(weights, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in weights
    )
    if not numbers or len(weights) != len(paths) or sum(weights) <= 0:
        raise UserError(f"weights of {path} must be {len(paths)} numbers of at least 0, one a member, got {weights!r}.")
    memory = content.get("memory_mb", MEMORY_MB)
    if not isinstance(memory, int | float) or isinstance(memory, bool) or memory <= 0:
        raise UserError(f"memory_mb of {path} must be a number above 0, got {memory!r}.")
    files = [MemberFile(path.parent / one, number) for number, one in enumerate(paths)]
    survey = _first_survey(files)
    blender = Blender(len(files), 1, survey, ("map",), ())
    blender.take_weights(normalise(weights))
    return Ensemble(survey, Members(files, survey, float(memory), device), blender, judges=False).eval()


def _first_survey(files: list[MemberFile]) -> Survey:
    """The survey of the first member that can be read.

    Raises:
        UserError: If none can.
    """
    reason: UserError | None = None
    for file in files:
        try:
            return Survey(**read_checkpoint(file.path)["hyper_parameters"]["survey"])
        except UserError as error:
            reason = reason or error
    raise UserError(f"no member can be read: {reason}")
