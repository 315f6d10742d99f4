"""The models by the name that users type."""

from pathlib import Path

import lightning
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fwi_lightning.commands import CONF, _register_resolvers
from fwi_lightning.config import build, plain
from fwi_lightning.geology import FAMILIES
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import OPENFWI, Survey
from fwi_lightning.training.module import InversionModule

_register_resolvers()
# A refiner is no model of gathers alone: tests/models/test_refiner.py has it.
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem != "refiner")

SMALLER = {name: ["model.width=8"] for name in NAMES}
"""Settings that make a model of the same structure small enough for the fast tests."""
SMALLER |= {
    "invertible_unet": ["model.width=16"],
    "inversionnet": [],
    "caformer": ["model.decoder=[16,16,8]"],
    "convnext": ["model.backbone=convnext_atto", "model.decoder=[16,16,8]"],
    "eva02": [],
}


def settings(name: str, *overrides: str, full: bool = False) -> DictConfig:
    """The configuration of a training of conf/model/NAME.yaml, at reduced width unless `full`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"model={name}", *([] if full else SMALLER[name]), *overrides])


def make(name: str, *overrides: str, survey: Survey = OPENFWI, full: bool = False) -> VelocityModel:
    """The model of conf/model/NAME.yaml with weights drawn from seed 0, at reduced width unless `full`."""
    config = settings(name, *overrides, full=full)
    torch.manual_seed(0)
    return build(config.model, survey=survey.to_dict(), families=FAMILIES)


def make_module(name: str, *overrides: str, survey: Survey = OPENFWI, full: bool = False) -> InversionModule:
    """The same model in the module that trains it."""
    config = settings(name, *overrides, full=full)
    torch.manual_seed(0)
    sections = (plain(config[section]) for section in ("loss", "optimizer"))
    return InversionModule(plain(config.model), survey.to_dict(), *sections, None, FAMILIES)


def write_checkpoint(module: InversionModule, path: Path) -> Path:
    """Lightning's own checkpoint of a module that nothing has trained."""
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return path
