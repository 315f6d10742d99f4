"""What is asked of a training's settings before anything is built or read: kinds, ranges, and what must go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from fwi_lightning.commands.rules import NULL, POSITIVE, SHARE, Rule, number, one_of, whole
from fwi_lightning.config import build, check_settings, plain
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.training.checkpoint import build_model
from fwi_lightning.training.optimised import build_schedule

RULES: dict[str, Rule] = {
    "seed": whole(0),
    "fold": whole(0),
    "folds": whole(2),
    "memory_failures": whole(0),
    "calibration": whole(20) | one_of(0),
    "heads.*": number(0),
    "metrics.*": one_of(True, False),
    "optimizer.*lr": number(0),
    "optimizer.weight_decay": number(0),
    "scheduler.max_lr": number(0),
    "scheduler.gamma": POSITIVE,
    "callbacks.*.mode": one_of("min", "max"),
    "callbacks.*.patience": whole(1),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.num_nodes": whole(1),
    "trainer.max_epochs": whole(-1),
    "trainer.max_steps": whole(-1),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.check_val_every_n_epoch": whole(1),
    "trainer.limit_train_batches": SHARE | whole(1),
    "trainer.limit_val_batches": SHARE | whole(0),
    "trainer.gradient_clip_val": POSITIVE | NULL,
    "trainer.gradient_clip_algorithm": one_of("norm", "value"),
    "trainer.overfit_batches": Rule(lambda v: v == 0, "left out (debug=overfit repeats the same few samples)"),
    "trainer.log_every_n_steps": whole(1),
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.fast_dev_run": one_of(True, False) | whole(1),
    "trainer.deterministic": one_of(True, False, "warn"),
    "trainer.enable_*": one_of(True, False),
    "trainer.use_distributed_sampler": one_of(False),
}
"""By key, in which * stands for anything."""


def check(config: DictConfig) -> None:
    """Look at every setting of a training before any work is done.

    Args:
        config: conf/train.yaml, or one that extends it.

    Raises:
        UserError: If one is unknown, of another kind or out of range, or two do not go together.
    """
    settings = plain(config)
    for key, value in _leaves(settings):
        for pattern, rule in RULES.items():
            if fnmatchcase(key, pattern) and not rule.allows(value):
                raise UserError(f"{key} must be {rule.words}, got {value!r}.")
    _check_devices(settings["trainer"])
    _check_precision(settings["trainer"])
    check_settings(settings["logger"])
    build(settings["callbacks"])
    _build_optimisation(settings)
    # On the meta device a model is built without its memory: in milliseconds, not gigabytes.
    with torch.device("meta"):
        build_model(settings["model"], settings["physics"], FAMILIES)


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _build_optimisation(settings: Mapping[str, Any]) -> None:
    """Let optimiser and schedule look at their settings, with a weight that nobody needs."""
    optimizer = build(settings["optimizer"], params=[nn.Parameter(torch.zeros(2, 2))])
    if settings["scheduler"] is not None:
        build_schedule(settings["scheduler"], optimizer, lambda: 100)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse devices that this machine does not have."""
    kind, devices = trainer["accelerator"], trainer["devices"]
    if kind in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise UserError(f"trainer.accelerator={kind}: this machine has no GPU that torch can use; take trainer=cpu.")
    on_gpu = kind != "cpu" and torch.accelerator.is_available()
    there = torch.accelerator.device_count()
    if on_gpu and isinstance(devices, int) and devices > there:
        raise UserError(f"trainer.devices={devices}: this machine has {there}; take as many or fewer.")


def _check_precision(trainer: Mapping[str, Any]) -> None:
    """Refuse what Lightning would do otherwise than asked, or what would spoil the labels."""
    precision, kind = str(trainer["precision"]), trainer["accelerator"]
    if precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        raise UserError(f"trainer.precision={precision} would round the true maps to 2 or 16 m/s: use {mixed}.")
    on_cpu = kind == "cpu" or (kind == "auto" and not torch.accelerator.is_available())
    if precision in ("16", "16-mixed") and on_cpu:
        raise UserError(
            f"trainer.precision={precision} trains in float16, which needs a GPU: use bf16-mixed or 32-true on a CPU."
        )
