"""`python -m fwi_lightning adapt`: fine-tune a model to gathers without maps, on its own predictions, simulated."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.commands.checks import check
from fwi_lightning.commands.fitting import (
    LAST,
    Run,
    fit,
    introduce,
    make_inversion,
    make_trainer,
    open_run,
    quieten,
    read_data,
    record,
    say,
)
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.predict import choose_device
from fwi_lightning.config import plain
from fwi_lightning.data import GathersDataset, find_parts
from fwi_lightning.data.pairs import KEPT
from fwi_lightning.data.truth import with_truth
from fwi_lightning.errors import UserError
from fwi_lightning.inversion.adaptation import write_pairs
from fwi_lightning.models import VelocityModel
from fwi_lightning.report.files import write_bytes
from fwi_lightning.report.tables import records_table, write_csv
from fwi_lightning.training.checkpoint import load_model, read_checkpoint

ADAPTED = "adapted.ckpt"
"""The weights after a round, in its folder, and at last in the output's; a round that has it is done."""


def main(config: DictConfig) -> None:
    """Adapt a model.

    Args:
        config: conf/adapt.yaml.

    Raises:
        UserError: If a setting, the checkpoint, the input or the output folder cannot be used.
    """
    quieten()
    _check(config)
    output, first = Path(config.output), Path(config.ckpt)
    check(_training(config, output / "round1", output / "round1" / "pairs", first))
    device = choose_device(config.device)
    dataset = _samples(config, load_model(first))
    writable_folder(output)
    current, rows = first, []
    for number in range(1, config.rounds + 1):
        folder = output / f"round{number}"
        model, pairs = load_model(current, device), folder / "pairs"
        rows.append(_row(number - 1, _write(model, dataset, config, pairs, current)))
        say(f"round {number} of {config.rounds}: {_words(rows[-1])}")
        if not (folder / ADAPTED).is_file():
            _train(config, folder, pairs, current)
        current = folder / ADAPTED
    rows.append(_row(config.rounds, _write(load_model(current, device), dataset, config, output / "after", current)))
    write_bytes(output / ADAPTED, current.read_bytes())
    write_csv(output / "adapt.csv", rows)
    rich.print(records_table(rows).to_rich("after each round, on the input"))
    print(output / "adapt.csv")
    print(f"{output / ADAPTED}; to predict with it: python predict.py ckpt={output / ADAPTED} input={config.input}")


def _check(config: DictConfig) -> None:
    """Refuse settings before any work."""
    for name, least in (("rounds", 1), ("batch_size", 1)):
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if config.samples is not None and (not isinstance(config.samples, int) or config.samples < 1):
        raise UserError(f"samples must be a whole number of at least 1, or null for all, got {config.samples!r}.")
    if not isinstance(config.kept_share, int | float) or config.kept_share <= 0:
        raise UserError(f"kept_share must be above 0 (keep=null leaves it out), got {config.kept_share!r}.")
    if len(config.bounds) != 2 or not 0 < config.bounds[0] < config.bounds[1]:
        raise UserError(f"bounds must be the lowest and the highest velocity in m/s, got {list(config.bounds)}.")
    if config.trainer.devices != 1:
        raise UserError(f"adapt trains on one device: leave trainer.devices at 1, got {config.trainer.devices!r}.")
    if config.keep is not None and not Path(config.keep).is_dir():
        raise UserError(
            f"keep={config.keep} is no folder: give a folder of gathers and velocity maps, or leave it out."
        )


def _samples(config: DictConfig, model: VelocityModel) -> GathersDataset:
    """The samples to adapt to, with their truth where there is one."""
    parts = find_parts(config.input, survey=model.survey, labels=False)
    if config.truth is not None:
        parts = with_truth(parts, config.truth, model.survey)
    total = sum(part.samples for part in parts)
    count = min(total, config.samples or total)
    return GathersDataset(parts, np.linspace(0, total - 1, count).astype(int))


def _write(
    model: VelocityModel, dataset: GathersDataset, config: DictConfig, folder: Path, ckpt: Path
) -> list[dict[str, Any]]:
    """The pairs that a checkpoint makes of the input."""
    families = read_checkpoint(ckpt)["hyper_parameters"]["families"]
    made_of = {
        "ckpt": hashlib.sha256(ckpt.read_bytes()).hexdigest(),
        "input": str(Path(config.input).absolute()),
        "truth": config.truth is not None,
    }
    bounds = (float(config.bounds[0]), float(config.bounds[1]))
    return write_pairs(model, dataset, families, folder, made_of, bounds)


def _train(config: DictConfig, folder: Path, pairs: Path, current: Path) -> None:
    """Fine-tune on the pairs of a round, from its beginning or from where it stopped."""
    if config.keep is not None and not (pairs / KEPT).exists():
        (pairs / KEPT).symlink_to(Path(config.keep).absolute(), target_is_directory=True)
    run = open_run(_training(config, folder, pairs, current), "adapted model", folder)
    read_data(run)
    module, model = make_inversion(run), load_model(current)
    if model.families and list(model.families) != run.data.families:
        others = ", ".join(family for family in run.data.families if family not in model.families)
        raise UserError(f"keep={config.keep} has families that the model's family head does not know ({others}).")
    if not run.resumed:
        module.model.load_state_dict(model.state_dict())
    trainer = make_trainer(run, module)
    record(run)
    introduce(run, module)
    fit(trainer, module, run, command="")
    if trainer.is_global_zero:
        _save(run, folder / ADAPTED)


def _training(config: DictConfig, folder: Path, pairs: Path, current: Path) -> DictConfig:
    """The configuration of one round's training, conf/train.yaml with what the checkpoint and the input decide."""
    parameters = read_checkpoint(current)["hyper_parameters"]
    settings = plain(config)
    before = HydraConfig.get().runtime.output_dir
    for group in ("callbacks", "logger"):
        settings[group] = _moved(settings[group], before, str(folder))
    last = folder / LAST
    settings |= {
        "physics": parameters["survey"],
        # What a pretrained encoder began with may be gone, and is in the weights.
        "model": {name: value for name, value in parameters["model"].items() if name != "pretrained"},
        "data": {
            "_target_": "fwi_lightning.data.PairsDataModule",
            "root": str(pairs),
            "families": list(parameters["families"]),
            "kept_share": float(config.kept_share) if config.keep is not None else 0.0,
            "batch_size": config.batch_size,
        },
        "ckpt": str(last) if last.is_file() else None,
        "init": None if last.is_file() else str(current),
    }
    found = OmegaConf.create(settings)
    assert isinstance(found, DictConfig)
    return found


def _moved(settings: Any, before: str, after: str) -> Any:
    """Settings whose paths inside one folder lie in another."""
    if isinstance(settings, dict):
        return {name: _moved(value, before, after) for name, value in settings.items()}
    if isinstance(settings, str) and settings.startswith(before):
        return after + settings.removeprefix(before)
    return settings


def _save(run: Run, path: Path) -> None:
    """The weights and what rebuilds the model, without the state of the optimiser."""
    last = torch.load(run.folder / LAST, map_location="cpu", weights_only=True)
    content = io.BytesIO()
    torch.save({name: last[name] for name in ("state_dict", "hyper_parameters")}, content)
    write_bytes(path, content.getvalue())


def _row(number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the input after a round; round 0 is the model that was given."""
    row: dict[str, Any] = {"round": number, "samples": len(rows)}
    row["misfit"] = float(np.median([sample["misfit"] for sample in rows]))
    if all("mae" in sample for sample in rows):
        row["mae"] = float(np.mean([sample["mae"] for sample in rows]))
    return row


def _words(row: dict[str, Any]) -> str:
    words = f"median misfit {row['misfit']:.4f}"
    return words + (f", MAE {row['mae']:.1f} m/s" if "mae" in row else "")
