"""What `train` and `pretrain` have in common: the run folder, its data, the start of a model, the trainer."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.commands.checks import check
from fwi_lightning.commands.environment import environment
from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.commands.recording import check_thinning, compare_with_survey
from fwi_lightning.config import build, plain, with_defaults
from fwi_lightning.data import GathersDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import SUPERVISED, read_checkpoint, task_of
from fwi_lightning.training.initialisation import find_weights, initialise
from fwi_lightning.training.logger import forget_later_steps
from fwi_lightning.training.memory import SplitStep
from fwi_lightning.training.module import InversionModule
from fwi_lightning.training.optimised import OptimisedModule
from fwi_lightning.training.sharding import Sharded

ENVIRONMENT, SETTINGS, LAST = "environment.json", "config.yaml", "checkpoints/last.ckpt"
"""Files of a run folder that a run goes on from."""


@dataclass
class Run:
    """A run folder and what fills it.

    Attributes:
        config: The configuration, conf/train.yaml or one that extends it.
        model_name: The choice of `model=`.
        folder: The run folder.
        resumed: Whether the run goes on from a checkpoint.
        survey: The survey.
        data: The data; read after `read_data`.
        facts: What the run is made with, by name.
    """

    config: DictConfig
    model_name: str
    folder: Path
    resumed: bool
    survey: Survey
    data: GathersDataModule
    facts: dict[str, str] = field(default_factory=dict)


def begin(config: DictConfig) -> Run:
    """The run that the command line asks for; raises as `open_run`."""
    quieten()
    name = str(HydraConfig.get().runtime.choices["model"])
    if config.ckpt is not None and Path(config.ckpt).is_dir():
        config, name = _take_up(Path(config.ckpt))
    return open_run(config, name, Path(HydraConfig.get().runtime.output_dir))


def open_run(config: DictConfig, name: str, folder: Path) -> Run:
    """Check what can be checked before any work is done.

    Args:
        config: conf/train.yaml, or one that extends it.
        name: What the model is called.
        folder: The run folder.

    Raises:
        UserError: If a setting, the folder or the checkpoint to go on from does not fit.
    """
    check(config)
    folder = writable_folder(folder)
    resumed = _check_resume(config, folder)
    if config.init is not None:
        find_weights(config.init, name)
    survey = Survey(**plain(config.physics))
    data: GathersDataModule = build(
        config.data,
        survey=survey.to_dict(),
        fold=config.fold,
        folds=config.folds,
        seed=config.seed,
        augment=plain(config.augment),
    )
    return Run(config, name, folder, resumed, survey, data)


def read_data(run: Run) -> None:
    """Make or find the data, and compare it with the survey.

    Raises:
        UserError: If the data does not fit.
    """
    lightning.seed_everything(run.config.seed, workers=True, verbose=False)
    run.data.prepare_data()
    run.data.setup("fit")
    run.facts = environment() | {"differences from the survey": compare_with_survey(run.data.look, run.survey)}


def make_inversion(run: Run) -> InversionModule:
    """The module that learns the map from its label."""
    config = run.config
    return InversionModule(
        model=plain(config.model),
        survey=run.survey.to_dict(),
        loss=plain(config.loss),
        optimizer=plain(config.optimizer),
        scheduler=plain(config.scheduler),
        families=run.data.families,
        heads=plain(config.heads),
        metrics=plain(config.get("metrics")),
    )


def start_model(run: Run, model: VelocityModel) -> None:
    """Give a new run's model its scale and, with `init=`, its weights; then write what the run is made with.

    Raises:
        UserError: If the weights or the records do not fit, or a training sample cannot be read.
    """
    check_thinning(run.data.parts[0].shape[1], model.transform)
    if not run.resumed:
        if model.transform.fitted:
            model.transform.fit(torch.from_numpy(run.data.mean_squares(model.transform)))
        if run.config.init is not None:
            matches = initialise(model, find_weights(run.config.init, run.model_name))
            run.facts["init"] = str(matches)
            say(f"init: {matches}")
    record(run)


@rank_zero_only
def say(sentence: str) -> None:
    """Print a line, once however many devices there are."""
    print(sentence, flush=True)


def introduce(run: Run, module: lightning.LightningModule, task: str = "") -> None:
    """Print what is about to be trained on what."""
    parameters = sum(p.numel() for p in module.parameters())
    say(
        f"{run.model_name}{task}, {parameters / 1e6:.2f} M parameters; fold {run.config.fold} of {run.config.folds}: "
        f"{run.data.samples_per_epoch} samples train, {len(run.data.val_dataset)} validate; {run.folder}"
    )


def make_trainer(run: Run, module: OptimisedModule) -> lightning.Trainer:
    """The trainer with its callbacks and loggers.

    Raises:
        UserError: If it does not take a setting, or a callback or the schedule monitors what is never logged.
    """
    config = run.config
    settings = build(config.trainer)
    # A device that starts a sharded step again would leave the others waiting for its share of the weights.
    if config.memory_failures and not isinstance(settings["strategy"], Sharded):
        module.memory = SplitStep(config.memory_failures)
    _check_monitors(config, module.validation_names(run.data.needs_illumination))
    # A bar that is redrawn needs a terminal; in a file it would be thousands of lines.
    settings["enable_progress_bar"] = settings["enable_progress_bar"] and sys.stderr.isatty()
    callbacks = [build(entry) for entry in config.callbacks.values()]
    loggers = [build(entry) for entry in config.logger.values()]
    try:
        return lightning.Trainer(callbacks=callbacks, logger=loggers, default_root_dir=run.folder, **settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}") from error


def fit(trainer: lightning.Trainer, module: lightning.LightningModule, run: Run, command: str) -> None:
    """Train, from the beginning or from where a checkpoint stopped; after Ctrl-C say how to go on.

    Args:
        trainer: The trainer.
        module: What to train.
        run: Its run.
        command: How the user starts such a run; empty if the same command goes on with it.

    Raises:
        UserError: If data or memory fails on the way; it says how to go on, if a checkpoint is there.
    """
    try:
        trainer.fit(module, datamodule=run.data, ckpt_path=run.config.ckpt)
    except SystemExit:
        # Lightning's answer to Ctrl-C, after callbacks have saved what they save.
        if run.config.get("sweep"):
            say("stopped; the same command goes on with the sweep.")
        elif not command:
            say("stopped; the same command goes on.")
        elif (run.folder / LAST).is_file():
            say(f"stopped; to go on: {command} ckpt={run.folder}")
        raise SystemExit(130) from None
    except UserError as error:
        if not (run.folder / LAST).is_file() or run.config.get("sweep") or not command:
            raise
        raise UserError(
            f"{str(error).strip()} After that, to go on from {LAST}: {command} ckpt={run.folder}"
        ) from error


def _take_up(folder: Path) -> tuple[DictConfig, str]:
    """The settings of a run that goes on, and the name of its model.

    Args:
        folder: The run folder. Settings of the command line change those that it holds.

    Raises:
        UserError: If it holds no run that could go on, or the command line chooses another file of a group.
    """
    for name in (SETTINGS, ENVIRONMENT, LAST):
        if not (folder / name).is_file():
            raise UserError(f"ckpt={folder} is no run that can go on: it has no {name}. Give a run folder or a file.")
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith("ckpt=")]
    groups = [word for word in words if word.split("=")[0] in HydraConfig.get().runtime.choices or "=" not in word]
    if groups:
        raise UserError(f"ckpt={folder} goes on with the settings of its run: leave out {' '.join(groups)}.")
    config = OmegaConf.load(folder / SETTINGS)
    assert isinstance(config, DictConfig)
    config.merge_with_dotlist([word.lstrip("+") for word in words])
    config.ckpt, config.init = str(folder / LAST), None
    return config, str(json.loads((folder / ENVIRONMENT).read_text())["model"])


def _check_monitors(config: DictConfig, names: list[str]) -> None:
    """Refuse to wait for a score that never comes.

    Args:
        config: conf/train.yaml.
        names: What a validation logs.
    """
    watching = {f"callbacks.{name}": entry for name, entry in config.callbacks.items()}
    for name, entry in (watching | {"scheduler": config.scheduler}).items():
        monitor = entry.get("monitor")
        if monitor is None:
            continue
        if monitor not in names:
            raise UserError(f"{name}.monitor={monitor} is never logged: choose one of {', '.join(names)}.")
        if config.trainer.get("limit_val_batches") == 0:
            leave = f"leave it out with '~{name}'" if name != "scheduler" else "take another scheduler"
            raise UserError(
                f"{name}.monitor={monitor} needs a validation, and trainer.limit_val_batches=0 leaves it out: {leave}."
            )


def _check_resume(config: DictConfig, folder: Path) -> bool:
    """Whether the run goes on from a checkpoint, after comparing what must not differ."""
    if config.ckpt is None:
        # Of several processes the first may have made the folder by now.
        if (folder / "checkpoints").is_dir() and "LOCAL_RANK" not in os.environ:
            raise UserError(f"{folder} already holds a run: go on with ckpt={folder}, or choose another hydra.run.dir.")
        return False
    if config.init is not None:
        raise UserError(
            f"init={config.init} begins a run and ckpt={config.ckpt} goes on with one: leave out one of the two."
        )
    checkpoint = read_checkpoint(config.ckpt)
    parameters = checkpoint["hyper_parameters"]
    task = config.get("task", SUPERVISED)
    if task_of(checkpoint) != task:
        raise UserError(
            f"{config.ckpt} is of task={task_of(checkpoint)}, this run of {task}: begin a run from its weights with "
            f"init={config.ckpt}."
        )
    differing = _differences(parameters, config)
    if differing:
        raise UserError(
            f"{config.ckpt} cannot go on with these settings: {'; '.join(differing)}. Repeat those of its run, which "
            "are in its config.yaml."
        )
    if parameters.get("loss", plain(config.loss)) != plain(config.loss):
        print(f"note: {config.ckpt} was trained with another loss, see its config.yaml; it goes on with {config.loss}")
    forget_later_steps(folder / "metrics.csv", int(checkpoint["global_step"]))
    return True


def _differences(parameters: dict[str, Any], config: DictConfig) -> list[str]:
    """What a checkpoint's run had otherwise, of what must not differ."""
    differing = []
    for name in ("model", "physics"):
        # A checkpoint from before a setting came in has the setting's default.
        saved = with_defaults(parameters["survey" if name == "physics" else name])
        now = with_defaults(plain(config[name]))
        keys = sorted(set(saved) | set(now))
        differing += [
            f"{name}.{key} was {saved.get(key)!r}, now {now.get(key)!r}"
            for key in keys
            if saved.get(key) != now.get(key)
        ]
    if "share" in parameters and parameters["share"] != config.share:
        differing.append(f"share was {parameters['share']}, now {config.share}")
    return differing


@rank_zero_only
def record(run: Run) -> None:
    """Write what the run was made with: config.yaml, environment.json, split.csv."""
    settings = OmegaConf.to_yaml(run.config, resolve=True)
    # The folder may be moved before the run goes on.
    settings = settings.replace(HydraConfig.get().runtime.output_dir, "${hydra:runtime.output_dir}")
    (run.folder / SETTINGS).write_text(settings)
    path, command = run.folder / ENVIRONMENT, " ".join(sys.argv)
    begun = {"begun by": command}
    if run.resumed and path.is_file():
        # Whoever goes on does not say again where the weights were from, nor the settings.
        before = json.loads(path.read_text())
        begun = {name: before[name] for name in ("init", "begun by") if name in before}
    circumstances = begun | run.facts | {"model": run.model_name, "seed": run.config.seed, "command": command}
    path.write_text(json.dumps(circumstances, indent=2) + "\n")
    run.data.write_split(run.folder / "split.csv")


def quieten() -> None:
    """Silence what is meant for the authors of a training loop, not for its users."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    unneeded = ["does not have many workers", "number of training batches", "LeafSpec", "exists and is not empty"]
    # Sharded weights are refused by EMA itself; scores are sums over all devices already.
    unneeded += ["overrides the configure_model callback", "recommended to use `self.log"]
    for message in unneeded:
        warnings.filterwarnings("ignore", f".*{message}.*")
