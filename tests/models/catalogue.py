"""The models by the name that users type."""

import torch
from hydra import compose, initialize_config_dir

from fwi_lightning.commands import CONF, _register_resolvers
from fwi_lightning.config import build
from fwi_lightning.geology import FAMILIES
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import OPENFWI, Survey

_register_resolvers()
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))

SMALLER = {name: ["model.width=8"] for name in NAMES}
"""Settings that make a model of the same structure small enough for the fast tests."""
SMALLER |= {
    "invertible_unet": ["model.width=8"],
    "inversionnet": [],
    "caformer": ["model.decoder=[16,16,8]"],
    "convnext": ["model.backbone=convnext_atto", "model.decoder=[16,16,8]"],
    "eva02": [],
}


def make(name: str, *overrides: str, survey: Survey = OPENFWI, full: bool = False) -> VelocityModel:
    """The model of conf/model/NAME.yaml with weights drawn from seed 0, at reduced width unless `full`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"model={name}", *([] if full else SMALLER[name]), *overrides])
    torch.manual_seed(0)
    return build(config.model, survey=survey.to_dict(), families=FAMILIES)
