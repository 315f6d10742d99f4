"""The members of an ensemble as files: what each was not trained on, which groups they form, what goes together."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import ListConfig, OmegaConf

from fwi_lightning.commands.fitting import ENVIRONMENT, LAST, SETTINGS
from fwi_lightning.config import build, plain
from fwi_lightning.data import GathersDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import SUPERVISED, read_checkpoint, task_of

BEST = "checkpoints/best.ckpt"
SPLIT = "split.csv"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may become a member.

    Attributes:
        path: The checkpoint.
        model: Choice of `model=` in its training.
        label: What messages and tables call it.
        digest: SHA-256 of the file.
        settings: What members of one group have in common: model, loss, optimiser, schedule.
        survey: The survey, as a dict.
        data: The data of its training, set up.
        held: Global numbers of the samples that it was not trained on, ascending.
        source_velocity: What it does with the velocity at the shots; see `KnownVelocity`.
    """

    path: Path
    model: str
    label: str
    digest: str
    settings: str
    survey: dict[str, Any]
    data: GathersDataModule
    held: NDArray[np.int64]
    source_velocity: str

    @property
    def files(self) -> list[str]:
        """The files of its data."""
        return [str(part.gathers.resolve()) for part in self.data.parts]


@dataclass(frozen=True)
class Group:
    """Members with the same settings, trained on different folds: their mean counts as one model.

    Attributes:
        name: For tables: the model's name, numbered where two groups share it.
        members: Places of its members in the list of all.
    """

    name: str
    members: tuple[int, ...]


def find_members(given: str | Sequence[str] | ListConfig) -> list[Path]:
    """The checkpoints of a list of files, run folders and patterns.

    Args:
        given: One or several of: a checkpoint; a run folder, for its best.ckpt, else last.ckpt; a pattern with *.

    Raises:
        UserError: If there is none, or a folder holds none, or one is given twice.
    """
    found: list[Path] = []
    for word in [given] if isinstance(given, str) else list(given):
        path = Path(str(word))
        if "*" in str(word):
            base = Path(path.anchor) if path.is_absolute() else Path()
            matches = sorted(base.glob(str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)))
            matches = [match for match in matches if match.is_dir() or match.suffix == ".ckpt"]  # no logs beside them
            if not matches:
                raise UserError(f"members: no checkpoint or folder matches {word}: give checkpoints or run folders.")
            found += [_checkpoint(match) for match in matches]
        else:
            found.append(_checkpoint(path))
    if not found:
        raise UserError(
            "members=[] names no checkpoint: give at least one, such as members=[RUN/checkpoints/best.ckpt]."
        )
    twice = [path for path in found if found.count(path) > 1]
    if twice:
        raise UserError(f"members has {twice[0]} twice: leave one out, its weight says how much it counts.")
    return found


def _checkpoint(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} holds no {BEST} or {LAST}: give members= checkpoints or finished run folders.")


def read_member(path: Path) -> Candidate:
    """A member from its checkpoint and the run folder around it.

    Args:
        path: RUN/checkpoints/NAME.ckpt.

    Raises:
        UserError: If it is no checkpoint of a supervised training, its run folder is not around it, or the data of its
            training has changed.
    """
    checkpoint = read_checkpoint(path, "members")
    if task_of(checkpoint) != SUPERVISED:
        raise UserError(f"{path} is of a pretraining and makes no maps: give members= checkpoints of train.py.")
    run = path.resolve().parent.parent
    for name in (SETTINGS, ENVIRONMENT, SPLIT):
        if not (run / name).is_file():
            raise UserError(
                f"{path} lies outside its run folder ({run} has no {name}), which says what it was trained on: give "
                "RUN/checkpoints/NAME.ckpt as train.py left it."
            )
    config = OmegaConf.load(run / SETTINGS)
    survey = Survey(**plain(config.physics))
    data: GathersDataModule = build(
        config.data, survey=survey.to_dict(), fold=config.fold, folds=config.folds, seed=config.seed
    )
    data.prepare_data()
    data.setup()
    _check_split(path, run / SPLIT, data)
    parameters = checkpoint["hyper_parameters"]
    settings = {name: parameters.get(name) for name in ("model", "loss", "optimizer", "scheduler", "heads", "survey")}
    model = str(json.loads((run / ENVIRONMENT).read_text())["model"]) if _names_model(run) else _class_name(settings)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Candidate(
        path,
        model,
        f"{path} ({model}, fold {config.fold} of {config.folds}, seed {config.seed})",
        digest,
        json.dumps(settings, sort_keys=True, default=str),
        survey.to_dict(),
        data,
        np.sort(data.val_dataset.rows),
        str(parameters["model"].get("source_velocity", "none")),
    )


def _names_model(run: Path) -> bool:
    return "model" in json.loads((run / ENVIRONMENT).read_text())


def _class_name(settings: dict[str, Any]) -> str:
    """For runs of the first version, which did not write down the choice of `model=`."""
    return str(settings["model"]["_target_"]).rpartition(".")[2]


def _check_split(path: Path, split: Path, data: GathersDataModule) -> None:
    """Whether the data is still divided as it was when the member was trained.

    Raises:
        UserError: If it is not: samples that were trained on would pass for held out.
    """
    with split.open(newline="", encoding="utf-8") as file:
        before = [tuple(row.values()) for row in csv.DictReader(file)]
    now = [tuple(map(str, row.values())) for row in data.split_table()]
    if before != now:
        raise UserError(
            f"{path} was trained on other files, or folds of them, than are in {data.root} now ({split} has them): "
            "bring the data back as it was, or train again."
        )


def form_groups(members: Sequence[Candidate]) -> list[Group]:
    """Members of equal settings as groups, in the order of their first members."""
    places: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        places.setdefault(member.settings, []).append(place)
    names = [members[found[0]].model for found in places.values()]
    return [
        Group(f"{name} {names[: number + 1].count(name)}" if names.count(name) > 1 else name, tuple(found))
        for number, (name, found) in enumerate(zip(names, places.values(), strict=True))
    ]


def check_members(members: Sequence[Candidate], groups: Sequence[Group]) -> NDArray[np.int64]:
    """Refuse members that do not belong together, or that know the samples on which they would be compared.

    Args:
        members: The members.
        groups: Their groups.

    Returns:
        The samples to compare on, global numbers, ascending: those of which every group has a member that was not
        trained on them.

    Raises:
        UserError: With the names of two members that differ in survey or data, of those whose trainings leave no such
            sample, or of one that was trained on all of them.
    """
    first = members[0]
    for member in members[1:]:
        if member.survey != first.survey:
            raise UserError(f"{first.label} and {member.label} are of different surveys: give members of one survey.")
        if member.files != first.files:
            raise UserError(
                f"{first.label} and {member.label} were trained on different files: what neither has seen cannot be "
                "told; give members that were trained on folds of the same data."
            )
    unseen = [np.unique(np.concatenate([members[place].held for place in group.members])) for group in groups]
    common, names = unseen[0], [members[place].label for place in groups[0].members]
    for group, numbers in zip(groups[1:], unseen[1:], strict=True):
        common = np.intersect1d(common, numbers)
        names += [members[place].label for place in group.members]
        if not len(common):
            raise UserError(
                f"every sample was trained on by one of {'; '.join(names)}: nothing is left to compare them on. Give "
                "members that held out the same fold with the same seed, or of every model one for each fold."
            )
    for member in members:
        if not len(np.intersect1d(member.held, common)):
            raise UserError(
                f"{member.label} was trained on all {len(common)} samples that the members are compared on: leave it "
                "out, or add the same fold of the other models."
            )
    return common
