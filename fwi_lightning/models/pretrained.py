"""Backbones of timm, and their pretrained weights from the hub or from a file."""

from __future__ import annotations

import contextlib
import difflib
import pickle
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import timm.models
from safetensors import SafetensorError
from torch import Tensor

from fwi_lightning.errors import UserError

HUB_FILE = "model.safetensors"
"""Name under which timm keeps weights on the hub."""

PATIENCE = 1.0
"""Seconds that the hub has to answer; its client would try for most of a minute."""


def make_backbone(name: str, inputs: int, pretrained: bool | str, **settings: Any) -> Any:
    """A timm model without its classifier, whose intermediate features can be read.

    Args:
        name: timm's name of the architecture, such as "caformer_s18".
        inputs: Input channels. Pretrained weights of the first layer are spread over them.
        pretrained: True for the hub's weights, a file's path, or "none".
        **settings: As `timm.create_model`.

    Raises:
        UserError: If there is no such model, it gives no features, or the weights cannot be had or do not fit.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
        raise UserError(f"model.backbone={name} is no model of timm {timm.__version__}: did you mean {_any(nearest)}?")
    model = timm.create_model(name, in_chans=inputs, num_classes=0, **settings)
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"model.backbone={name} gives no intermediate features: take one such as caformer_s18.")
    if pretrained not in ("none", False, None):
        _load(model, name, inputs, _weights_file(name, pretrained))
    return model


def first_layer(model: Any) -> str:
    """Name of the convolution that reads the input of a timm model."""
    known = model.pretrained_cfg["first_conv"]
    return str(known if isinstance(known, str) else known[0])


def _any(names: list[str]) -> str:
    return " or ".join(names) or "one of timm.list_models()"


def _weights_file(name: str, pretrained: bool | str) -> Path:
    if pretrained not in (True, "true"):
        path = Path(str(pretrained))
        if not path.is_file():
            raise UserError(
                f"model.pretrained={pretrained} is not a file: give a .safetensors or .pth file, or true (hub), "
                "or none."
            )
        return path
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        raise UserError(f"timm knows no weights for {name}: give model.pretrained=FILE or none.")
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    advice = (
        f"download {HUB_FILE} of {repository} where there is a network and give model.pretrained=FILE, or use "
        "model.pretrained=none"
    )
    endpoint = huggingface_hub.constants.ENDPOINT
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise UserError(f"{endpoint} does not answer ({error}): {advice}.") from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, HUB_FILE))
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise UserError(f"the weights of {repository} could not be fetched ({error}): {advice}.") from None


def _load(model: Any, name: str, inputs: int, path: Path) -> None:
    """Load a file's weights, all but the classifier's, and refuse those of another architecture."""
    try:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(path), weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, KeyError, SafetensorError) as error:
        raise UserError(f"{path} holds no weights that can be read ({str(error).splitlines()[0]}).") from None
    module = sys.modules[timm.model_entrypoint(name).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is not None:
        # It is made for this architecture's own files; what is wrong with others is said below.
        with contextlib.suppress(KeyError, RuntimeError, AttributeError):
            state = convert(state, model)
    first = f"{first_layer(model)}.weight"
    if first in state:
        state[first] = timm.models.adapt_input_conv(inputs, state[first])
    expected = {key: value.shape for key, value in model.state_dict().items() if not _of_classifier(key)}
    missing = [key for key, shape in expected.items() if key not in state or state[key].shape != shape]
    if missing:
        raise UserError(
            f"{path} does not hold the weights of {name}: {len(missing)} of its {len(expected)} tensors are not in it "
            f"or have another shape, such as {missing[0]}; the file has {len(state)}, such as "
            f"{next(iter(state), 'none')}."
        )
    model.load_state_dict({key: state[key] for key in expected}, strict=False)


def _of_classifier(key: str) -> bool:
    return key.startswith(("head.", "fc_norm.", "norm."))
