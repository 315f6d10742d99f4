"""InversionNet as Los Alamos trained it (github lanl/OpenFWI), as a checkpoint of ours.

Their `network.py` names the layers in the order in which data runs through them: convblock1 to convblock8, deconv1_1
to deconv6, each a block of a convolution (0), a batch norm (1) and an activation. Ours are the same layers in the same
order in `InversionNetwork`, so that a list of names is all that there is to translate. Older files call a block
"Conv2DwithBN" or "Deconv2DwithBN" instead of "layers".
"""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.checkpoint import PREFIX, build_model

_ENCODER = ["convblock1", *(f"convblock{level}_{half}" for level in range(2, 8) for half in (1, 2))]
_DECODER = [f"deconv{level}_{half}" for level in range(1, 6) for half in (1, 2)]
BLOCKS = {
    **{theirs: f"net.encoder.{place}" for place, theirs in enumerate(_ENCODER)},
    "convblock8": "net.bottleneck",
    **{theirs: f"net.decoder.{place}" for place, theirs in enumerate(_DECODER)},
    "deconv6": "net.head",
}
"""Their block -> ours."""

_LEGACY = re.compile(r"\.(?:Conv2DwithBN(?:_Tanh)?|Deconv2DwithBN|ResizeConv2DwithBN)\.")


def convert(path: str | Path, family: str) -> dict[str, Any]:
    """A checkpoint that `load_model`, `init=` and predict.py read.

    Args:
        path: A .pth file of OpenFWI's InversionNet: what their train.py writes, or its "model" alone.
        family: The family that it was trained on: its extremes scale the gathers.

    Returns:
        hyper_parameters and state_dict, to be saved with torch.save.

    Raises:
        UserError: If the family is unknown, the file cannot be read, or it holds another network.
    """
    if family not in FAMILIES:
        raise UserError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    state = _theirs(Path(path))
    settings = {
        "_target_": "fwi_lightning.models.InversionNet",
        "time_step": OPENFWI.time_step,
        "output": "tanh",
        "amplitudes": "official",
        "official_family": family,
    }
    model = build_model(settings, OPENFWI.to_dict(), [family])
    ours = model.state_dict()
    translated = {_translate(name): value for name, value in state.items()}
    own = {name: value for name, value in ours.items() if name.startswith("net.")}
    wrong = sorted(own.keys() ^ translated.keys())
    wrong += [name for name in own if name in translated and own[name].shape != translated[name].shape]
    if wrong:
        raise UserError(
            f"{path} is not InversionNet as OpenFWI has it ({len(wrong)} tensors are missing, unknown or of another "
            f"shape, such as {wrong[0]}): give the file of an InversionNet with the standard widths."
        )
    weights = ours | {name: value.float() if value.is_floating_point() else value for name, value in translated.items()}
    parameters = {"model": settings, "survey": OPENFWI.to_dict(), "families": [family]}
    return {"hyper_parameters": parameters, "state_dict": {PREFIX + name: value for name, value in weights.items()}}


def _theirs(path: Path) -> dict[str, Tensor]:
    """The state dict in one of their files, without running any code in it."""
    if not path.is_file():
        raise UserError(f"{path} is not a file: give ckpt= a .pth file of OpenFWI's InversionNet.")
    try:
        # Their files hold the command line beside the weights: names and plain values in a Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, BadZipFile, KeyError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as weights alone: give ckpt= a .pth file that torch.save wrote."
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no weights: give ckpt= a .pth file of OpenFWI's InversionNet.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _translate(name: str) -> str:
    """Our name of one of their tensors; an unknown one stays as it is."""
    block, _, rest = _LEGACY.sub(".layers.", name).partition(".layers.")
    return f"{BLOCKS[block]}.{rest}" if block in BLOCKS and rest else name
