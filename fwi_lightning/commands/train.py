"""`python train.py`: train a model, test its best checkpoint, write the report."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.commands.environment import environment
from fwi_lightning.commands.evaluation import evaluate
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.recording import compare_with_survey
from fwi_lightning.config import build, plain, with_defaults
from fwi_lightning.data import GathersDataModule
from fwi_lightning.data.augment import Corruption
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import read_checkpoint
from fwi_lightning.training.logger import forget_later_steps
from fwi_lightning.training.losses import needs_illumination, reads_record
from fwi_lightning.training.module import InversionModule

FITTING_SAMPLES = 64
"""Training samples that the scale of the input is taken from."""


def main(config: DictConfig) -> None:
    """Run one training from its configuration.

    Args:
        config: conf/train.yaml.

    Raises:
        UserError: If a setting, the data or the checkpoint to go on from does not fit.
    """
    _quieten()
    _check_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    folder = writable_folder(HydraConfig.get().runtime.output_dir)
    resumed = _check_resume(config, folder)
    survey = Survey(**plain(config.physics))
    data: GathersDataModule = build(
        config.data,
        survey=survey.to_dict(),
        fold=config.fold,
        folds=config.folds,
        seed=config.seed,
        augment=plain(config.augment),
    )
    loss = build(config.loss)
    data.needs_illumination = needs_illumination(loss)
    if reads_record(loss) and any(isinstance(augmentation, Corruption) for augmentation in data.augmentations):
        print(
            "warning: the loss compares simulated with corrupted records: leave out augment=corruption.",
            file=sys.stderr,
        )
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data.prepare_data()
    data.setup("fit")
    facts = environment() | {"differences from the survey": compare_with_survey(data.train_dataset, survey)}
    _record(config, folder, data, facts)
    module = InversionModule(
        model=plain(config.model),
        survey=survey.to_dict(),
        loss=plain(config.loss),
        optimizer=plain(config.optimizer),
        scheduler=plain(config.scheduler),
        families=data.families,
        heads=plain(config.heads),
    )
    if not resumed:
        module.model.transform.fit(_fitting_gathers(data))
    trainer = _trainer(config, folder)
    parameters = sum(p.numel() for p in module.parameters())
    print(
        f"{HydraConfig.get().runtime.choices['model']}, {parameters / 1e6:.2f} M parameters; fold {config.fold} of "
        f"{config.folds}: {data.samples_per_epoch} samples train, {len(data.val_dataset)} validate; {folder}"
    )
    begun = time.monotonic()
    _fit(trainer, module, data, config.ckpt, folder)
    evaluate(trainer, module, data, config, folder, facts, seconds=time.monotonic() - begun)


def _check_precision(precision: str, accelerator: str) -> None:
    """Refuse what Lightning would do otherwise than asked, or what would spoil the labels."""
    if precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        raise UserError(f"trainer.precision={precision} would round the true maps to 2 or 16 m/s: use {mixed}.")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if precision in ("16", "16-mixed") and on_cpu:
        raise UserError(
            f"trainer.precision={precision} trains in float16, which needs a GPU: use bf16-mixed or 32-true on a CPU."
        )


def _check_resume(config: DictConfig, folder: Path) -> bool:
    """Whether the run goes on from a checkpoint, after comparing what must not differ."""
    if config.ckpt is None:
        if (folder / "checkpoints").is_dir():
            raise UserError(
                f"{folder} already holds a run: go on with ckpt={folder}/checkpoints/last.ckpt, or choose another "
                "hydra.run.dir."
            )
        return False
    checkpoint = read_checkpoint(config.ckpt)
    differing = []
    for name in ("model", "physics"):
        # A checkpoint from before a setting came in has the setting's default.
        saved = with_defaults(checkpoint["hyper_parameters"]["survey" if name == "physics" else name])
        now = with_defaults(plain(config[name]))
        keys = sorted(set(saved) | set(now))
        differing += [
            f"{name}.{key} was {saved.get(key)!r}, now {now.get(key)!r}"
            for key in keys
            if saved.get(key) != now.get(key)
        ]
    if differing:
        raise UserError(
            f"{config.ckpt} cannot go on with these settings: {'; '.join(differing)}. Repeat those of its run, which "
            "are in its config.yaml."
        )
    if checkpoint["hyper_parameters"]["loss"] != plain(config.loss):
        print(f"note: {config.ckpt} was trained with another loss, see its config.yaml; it goes on with {config.loss}")
    forget_later_steps(folder / "metrics.csv", int(checkpoint["global_step"]))
    return True


def _record(config: DictConfig, folder: Path, data: GathersDataModule, facts: dict[str, str]) -> None:
    """Write what the run was made with: config.yaml, environment.json, split.csv."""
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    circumstances = facts | {"seed": config.seed, "command": " ".join(sys.argv)}
    (folder / "environment.json").write_text(json.dumps(circumstances, indent=2) + "\n")
    data.write_split(folder / "split.csv")


def _fitting_gathers(data: GathersDataModule) -> torch.Tensor:
    """Gathers spread evenly over the training samples."""
    dataset = data.train_dataset
    step = max(1, len(dataset) // FITTING_SAMPLES)
    return torch.stack([dataset[index]["gathers"] for index in range(0, len(dataset), step)])


def _trainer(config: DictConfig, folder: Path) -> lightning.Trainer:
    settings = plain(config.trainer)
    # A bar that is redrawn needs a terminal; in a file it would be thousands of lines.
    settings["enable_progress_bar"] = settings["enable_progress_bar"] and sys.stderr.isatty()
    callbacks = [build(entry) for entry in config.callbacks.values()]
    loggers = [build(entry) for entry in config.logger.values()]
    try:
        return lightning.Trainer(callbacks=callbacks, logger=loggers, default_root_dir=folder, **settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}") from error


def _fit(
    trainer: lightning.Trainer, module: InversionModule, data: GathersDataModule, ckpt: str | None, folder: Path
) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    except SystemExit:
        # Lightning's answer to Ctrl-C, after callbacks have saved what they save.
        last = folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            print(f"stopped; to go on: python train.py {_overrides()} ckpt={last}".replace("  ", " "))
        raise SystemExit(130) from None


def _overrides() -> str:
    """The settings of the command line, to be repeated."""
    return " ".join(word for word in HydraConfig.get().overrides.task if not word.startswith("ckpt="))


def _quieten() -> None:
    """Silence what is meant for the authors of a training loop, not for its users."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    unneeded = ("does not have many workers", "number of training batches", "LeafSpec", "exists and is not empty")
    for message in unneeded:
        warnings.filterwarnings("ignore", f".*{message}.*")
