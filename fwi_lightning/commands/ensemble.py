"""`python -m fwi_lightning ensemble`: one model of several, weighed on samples that they were not trained on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.members import Candidate, Group, check_members, find_members, form_groups, read_member
from fwi_lightning.commands.predict import choose_device
from fwi_lightning.commands.rules import Rule, number, one_of, whole
from fwi_lightning.config import plain
from fwi_lightning.data import GathersDataModule, GathersDataset
from fwi_lightning.data.folds import assign_folds
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.ensemble.blender import PIXEL, SAMPLE
from fwi_lightning.inversion.ensemble.comparison import choose, compare
from fwi_lightning.inversion.ensemble.features import PHYSICS, Inputs, describe, read_record, simulate_maps
from fwi_lightning.inversion.ensemble.file import write_ensemble
from fwi_lightning.inversion.ensemble.fitting import Samples, Settings, fit, true_ssim
from fwi_lightning.inversion.ensemble.model import Ensemble, MemberFile, Members
from fwi_lightning.inversion.ensemble.out_of_fold import Predictions, group_velocity, predict_held_out
from fwi_lightning.inversion.ensemble.rows import fill_rows
from fwi_lightning.inversion.ensemble.weights import SAMPLERS
from fwi_lightning.models.source import USES
from fwi_lightning.report.ensemble import EnsembleReport, write_ensemble_report

META = {"sample": SAMPLE, "cell": PIXEL}
"""Words of the setting `meta`."""

RULES: dict[str, Rule] = {
    "batch_size": whole(1),
    "max_samples": whole(1),
    "folds": whole(3),
    "seed": whole(0),
    "trials": whole(1),
    "family_trials": whole(1),
    "steps": whole(1),
    "simulated": one_of(*PHYSICS),
    "ablation": one_of(True, False),
    "memory_mb": number(1),
}


def main(config: DictConfig) -> None:
    """Predict, weigh, compare, and write the ensemble with its report.

    Args:
        config: conf/ensemble.yaml.

    Raises:
        UserError: If a setting is out of range, the members do not belong together, or a folder cannot be written.
    """
    settings = read_settings(plain(config))
    members = [read_member(path) for path in find_members(config.members)]
    check_members(members, form_groups(members))
    device, output = choose_device(config.device), writable_folder(config.output)
    members, groups, numbers, predictions = predict_members(members, output, config, device)
    data = members[0].data
    dataset = GathersDataset(data.parts, numbers, data.families)
    samples = gather(dataset, data, groups, predictions, output, config)
    blocks = samples.features.own_blocks + samples.features.shared_blocks
    tried = config.ablation and "sample" in config.meta
    ablation = [*dict.fromkeys(blocks), "predicted SSIM", "family"] if tried else []
    begun = time.monotonic()
    found = compare(samples, data.survey, len(data.families), settings, ablation)
    kept = choose(found)
    blender = fit(samples, data.survey, len(data.families), settings).blender
    blender.method = kept
    files = [
        MemberFile(member.path, next(n for n, group in enumerate(groups) if place in group.members), member.digest)
        for place, member in enumerate(members)
    ]
    ensemble = Ensemble(
        data.survey,
        Members(files, data.survey, float(config.memory_mb)),
        blender,
        data.families,
        config.simulated,
        source_velocity=_source_velocity(members),
    )
    path = output / "ensemble.ckpt"
    write_ensemble(ensemble, path)
    report = EnsembleReport(
        comparison=found,
        kept=kept,
        groups=[group.name for group in groups],
        members=[
            {"group": group.name, "checkpoint": str(members[place].path), "held out": len(predictions[place].numbers)}
            for group in groups
            for place in group.members
        ],
        families=data.families,
        family=samples.family.numpy(),
        fold=samples.fold.numpy(),
        names=[dataset.name(place) for place in range(len(dataset))],
        weights=blender.weights.numpy(),
        family_weights=blender.family_weights.numpy(),
        spread=samples.inputs.velocity.std(dim=0, correction=0).mean(dim=(1, 2)).numpy(),
        seconds=time.monotonic() - begun,
    )
    page, table = write_ensemble_report(output, report)
    rich.print(table.to_rich())
    print(f"kept: {kept}")
    for written in (path, output / "scores.csv", output / "per_family.csv", output / "samples.csv", page):
        print(written)


def read_settings(settings: dict[str, Any]) -> Settings:
    """Look at the settings before any work.

    Raises:
        UserError: If one is out of range.
    """
    for key, rule in RULES.items():
        if not rule.allows(settings[key]):
            raise UserError(f"{key} must be {rule.words}, got {settings[key]!r}.")
    for key, known in (("samplers", SAMPLERS), ("meta", tuple(META))):
        value = settings[key]
        if not isinstance(value, list) or not set(map(str, value)) <= set(known):
            raise UserError(f"{key} must be a list of {' and '.join(known)}, got {value!r}.")
    if not settings["samplers"]:
        raise UserError("samplers=[] names none: give tpe, cmaes or both.")
    return Settings(
        trials=settings["trials"],
        family_trials=settings["family_trials"],
        samplers=tuple(settings["samplers"]),
        methods=tuple(META[name] for name in settings["meta"]),
        steps=settings["steps"],
        seed=settings["seed"],
    )


def predict_members(
    members: list[Candidate], output: Path, config: DictConfig, device: str
) -> tuple[list[Candidate], list[Group], NDArray[np.int64], list[Predictions]]:
    """Out-of-fold predictions of the members; one that fails is left out.

    Returns:
        The members that are left, their groups, the samples to compare on, and each member's predictions of those of
        them that it held out.

    Raises:
        UserError: If all fail.
    """
    while True:
        groups = form_groups(members)
        numbers = check_members(members, groups)
        if len(numbers) > config.max_samples:
            numbers = numbers[np.linspace(0, len(numbers) - 1, config.max_samples).astype(int)]
        predictions = [
            predict_held_out(
                member.path,
                member.digest,
                _held_out(member, numbers),
                output / "out_of_fold",
                config.batch_size,
                device,
            )
            for member in members
        ]
        if all(found is not None for found in predictions):
            return members, groups, numbers, [found for found in predictions if found is not None]
        members = [member for member, found in zip(members, predictions, strict=True) if found is not None]
        if not members:
            raise UserError("every member fails: the warnings above say why.")


def _held_out(member: Candidate, numbers: NDArray[np.int64]) -> GathersDataset:
    rows = np.intersect1d(member.held, numbers)
    return GathersDataset(member.data.parts, rows, member.data.families)


def gather(
    dataset: GathersDataset,
    data: GathersDataModule,
    groups: Sequence[Group],
    predictions: Sequence[Predictions],
    output: Path,
    config: DictConfig,
) -> Samples:
    """Everything that is fitted on, in arrays."""
    count, survey, numbers = len(dataset), data.survey, dataset.rows
    of_group = [[predictions[place] for place in group.members] for group in groups]
    velocity = torch.from_numpy(np.stack([group_velocity(found, numbers) for found in of_group]))
    truth = torch.stack([dataset.velocity(place)[0] for place in range(count)])
    scale = None
    if all(one.scale is not None for one in predictions):
        means = [group_velocity(found, numbers, "scale").mean(axis=(1, 2)) for found in of_group]
        scale = torch.from_numpy(np.stack(means))
    columns = read_record(torch.zeros(1, *survey.gathers_shape), survey).shape[1]
    shapes: dict[str, tuple[int, ...]] = {"record": (count, columns)}
    if config.simulated != "none":
        shapes["misfit"] = (count, 1 + len(groups) * (config.simulated == "members"))
        shapes["illumination"] = (count, *survey.grid)

    def look(places: range) -> dict[str, NDArray[np.float32]]:
        gathers = torch.stack([dataset[place]["gathers"] for place in places])
        rows = {"record": read_record(gathers, survey).numpy()}
        if config.simulated != "none":
            misfit, light = simulate_maps(velocity[:, list(places)], gathers, survey, config.simulated)
            rows |= {"misfit": misfit.numpy(), "illumination": light.numpy()}
        return rows

    facts = hashlib.sha256(numbers.tobytes() + velocity[:, :, ::9, ::9].contiguous().numpy().tobytes()).hexdigest()[:12]
    stem = output / "out_of_fold" / f"samples-{config.simulated}-{facts}"
    arrays = {
        name: torch.from_numpy(np.array(values))
        for name, values in fill_rows(stem, shapes, look, "looking at the records", config.batch_size).items()
    }
    inputs = Inputs(velocity, arrays["record"], arrays.get("misfit"), arrays.get("illumination"), scale)
    fold = nested_folds(dataset, config.folds, config.seed)
    family = torch.from_numpy(dataset.family_numbers)
    return Samples(inputs, truth, family, fold, describe(inputs, survey), true_ssim(velocity, truth))


def nested_folds(dataset: GathersDataset, folds: int, seed: int) -> torch.Tensor:
    """The nested fold of each sample, (samples,) int64: by file within a family, or by contiguous blocks of a file.

    Raises:
        UserError: If a family has fewer samples than folds.
    """
    rows: dict[Any, list[int]] = {}
    for place in range(len(dataset)):
        rows.setdefault(dataset.locate(place)[0], []).append(place)
    parts = [replace(part, samples=len(places)) for part, places in rows.items()]
    places = list(rows.values())
    fold = torch.zeros(len(dataset), dtype=torch.int64)
    for block in assign_folds(parts, folds, seed):
        fold[places[block.part][block.start : block.stop]] = block.fold
    return fold


def _source_velocity(members: Sequence[Candidate]) -> str:
    """The most demanding use of the velocity at the shots among the members."""
    return max((member.source_velocity for member in members), key=USES.index)
