"""From configuration to objects: `build` is the only place where that happens."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fwi_lightning.errors import UserError
from fwi_lightning.typecheck import fits, hints_of, words

ALLOWED_PREFIXES = (
    "fwi_lightning.",
    "lightning.pytorch.",
    "torch.nn.",
    "timm.optim.",
    "torch.optim.",
    "torchmetrics.",
)
"""Where the classes named by `_target_` may live. A configuration inside a checkpoint is foreign input."""


def plain(config: Any) -> Any:
    """A configuration as plain dicts, lists and numbers, interpolations resolved: what checkpoints may hold."""
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return config


def build(config: Any, **extra: Any) -> Any:
    """Build the object that a configuration describes.

    Args:
        config: A mapping with `_target_`, the dotted name of a class, and its arguments. Mappings and lists inside
            it are built first; whatever has no `_target_` arrives as a plain dict, list or number.
        **extra: Arguments that the configuration cannot know; they win over those in it.

    Returns:
        The object; for a configuration without `_target_`, its plain value.

    Raises:
        UserError: If a target is not a class under `ALLOWED_PREFIXES`, or does not take the arguments given.
    """
    config = plain(config)
    if isinstance(config, list | tuple):
        return [build(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {key: build(value) for key, value in config.items() if key != "_target_"} | extra
    if "_target_" not in config:
        return arguments
    target = find_class(config["_target_"])
    check_arguments(target, arguments, extra)
    try:
        return target(**arguments)
    except UserError:
        raise
    except _refusals() as error:
        raise UserError(f"{target.__name__} does not take these settings: {error}.") from error


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with all settings of its class, those left out at their defaults.

    Args:
        config: Plain settings; without `_target_` they come back as they are.

    Raises:
        UserError: As `find_class`.
    """
    if "_target_" not in config:
        return dict(config)
    found: dict[str, Any] = {}
    for owner in _owners(find_class(config["_target_"])):
        parameters = inspect.signature(owner).parameters
        found = {name: p.default for name, p in parameters.items() if p.default is not p.empty} | found
    return found | dict(config)


def find_class(name: Any) -> type:
    """The class of a dotted name.

    Args:
        name: For example "fwi_lightning.models.ResidualUNet".

    Returns:
        The class.

    Raises:
        UserError: If it is not a class that lives under `ALLOWED_PREFIXES`.
    """
    if not (isinstance(name, str) and name.startswith(ALLOWED_PREFIXES)):
        raise UserError(f"_target_ {name!r} is not allowed: it must be a class under {_allowed()}.")
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise UserError(f"_target_ {name!r} does not exist: correct the name in the configuration.") from None
    # The name alone proves nothing: a module also holds whatever it imported from elsewhere.
    if not (inspect.isclass(found) and f"{found.__module__}.".startswith(ALLOWED_PREFIXES)):
        raise UserError(f"_target_ {name!r} is not a class of {_allowed()}.")
    return found


def _allowed() -> str:
    return ", ".join(prefix.rstrip(".") for prefix in ALLOWED_PREFIXES)


def known_settings(target: type) -> list[str] | None:
    """Names of the settings that a class takes.

    A class of ours with `**` hands the rest on to the class above it, whose settings are then its own.

    Args:
        target: The class.

    Returns:
        The names, those of the class itself first; None if it takes any.
    """
    known: dict[str, None] = {}
    for owner in _owners(target):
        parameters = inspect.signature(owner).parameters.values()
        known |= dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return list(known)
    return None


def _owners(target: type) -> Iterator[type]:
    """The class, and those above it whose constructors it hands settings on to with `**`."""
    for owner in target.__mro__:
        if "__init__" in vars(owner):
            yield owner
            passed_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(owner).parameters.values())
            if not (passed_on and owner.__module__.startswith(ALLOWED_PREFIXES[0])):
                return


def check_settings(config: Any) -> None:
    """Find what `build` would refuse of settings, without building anything.

    Args:
        config: As for `build`, but for objects that only a configuration describes.

    Raises:
        UserError: If a target is not allowed, a setting is unknown, missing or of another type.
    """
    config = plain(config)
    if not isinstance(config, Mapping):
        return
    for value in config.values():
        check_settings(value)
    if "_target_" in config:
        described = [key for key, value in config.items() if isinstance(value, Mapping) and "_target_" in value]
        arguments = {key: value for key, value in config.items() if key != "_target_"}
        check_arguments(find_class(config["_target_"]), arguments, described)


def check_arguments(target: type, arguments: Mapping[str, Any], objects: Iterable[str] = ()) -> None:
    """Say which argument is unknown, missing or of another type before Python does, with what it takes.

    Args:
        target: The class.
        arguments: Its arguments.
        objects: Names of those whose type is not to be looked at. Default: none.

    Raises:
        UserError: If one is.
    """
    known = known_settings(target)
    for name in arguments:
        if known is not None and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{target.__name__} has no setting {name!r}.{hint} It has: {', '.join(known)}.")
    for name, parameter in inspect.signature(target).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and name not in arguments:
            raise UserError(f"{target.__name__} needs the setting {name!r}: add it to the configuration.")
    hints: dict[str, Any] = {}
    for owner in _owners(target):
        hints = hints_of(owner.__init__) | hints  # type: ignore[misc]
    for name, value in arguments.items():
        if name in hints and name not in objects and not fits(value, hints[name]):
            raise UserError(f"{name} of {target.__name__} must be {words(hints[name])}, got {value!r}.")


def _refusals() -> tuple[type[Exception], ...]:
    """What a class raises that does not like its arguments; Lightning's own kind only where Lightning is loaded.

    To load it takes longer than a prediction.
    """
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (TypeError, ValueError, *([lightning.MisconfigurationException] if lightning else []))
