"""The search space: from configuration and command line to distributions, and from a point back to settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fwi_lightning.errors import UserError

Space = dict[str, BaseDistribution]
"""Name of a setting, such as `optimizer.lr` -> what it may be."""

RANGE = ("low", "high", "log", "step")
"""Keys of a range."""

_PLAIN = re.compile(r"[A-Za-z_][\w./@-]*")
_OTHER_TYPES = ("true", "false", "null", "nan", "inf")


def read_space(config: Mapping[str, Any]) -> Space:
    """The space that `hydra.sweeper.space` describes.

    Args:
        config: Nested as the settings are, or with dotted names. At the ends either choices, `[16, 24, 32]`, or a
            range, `{low: 0.0001, high: 0.01, log: true}`; with whole numbers at both ends it has whole numbers only,
            with `step` its multiples. null leaves a setting out.

    Raises:
        UserError: If an end is neither, or its numbers do not fit.
    """
    return {name: _distribution(name, end) for name, end in _ends(config) if end is not None}


def read_words(words: Iterable[Override]) -> tuple[Space, list[str]]:
    """Sort the words of the command line into what is searched and what is fixed.

    Args:
        words: Parsed. `model=a,b`, `choice(...)`, `range(...)` and `glob(...)` are choices, `interval(low,high)` and
            `tag(log,interval(low,high))` are ranges.

    Returns:
        The space, and the other words as they were typed.
    """
    space: Space = {}
    fixed: list[str] = []
    for word in words:
        name = word.get_key_element()
        if not word.is_sweep_override():
            fixed.append(str(word.input_line))
        elif word.is_discrete_sweep():
            space[name] = _choices(name, [_value(v) for v in word.sweep_iterator(transformer=Transformer.identity)])
        else:
            sweep = word.value()
            assert isinstance(sweep, IntervalSweep)
            space[name] = _range(name, {"low": sweep.start, "high": sweep.end, "log": "log" in sweep.tags})
    return space, fixed


def join(configured: Space, typed: Space, fixed: Iterable[str]) -> Space:
    """The space of both: a setting that is typed, as a search or as one value, is no longer the configured one's.

    Raises:
        UserError: If nothing is left to search.
    """
    named = {_key(name) for name in typed} | {_key(word) for word in fixed}
    space = {name: found for name, found in configured.items() if name not in named} | typed
    if not space:
        raise UserError("there is nothing to search: add a range or choices to hydra.sweeper.space.")
    return space


def words_of(point: Mapping[str, Any]) -> list[str]:
    """A point as words of the command line, `optimizer.lr=0.001`."""
    return [f"{name}={_text(value)}" for name, value in point.items()]


def describe(found: BaseDistribution) -> str:
    """What a setting may be, for a person: `0.0001 to 0.01 (log)`, `16, 24 or 32`."""
    if isinstance(found, CategoricalDistribution):
        *others, last = map(str, found.choices)
        return f"{', '.join(others)} or {last}" if others else last
    assert isinstance(found, FloatDistribution | IntDistribution)
    step = None if isinstance(found, IntDistribution) and found.step == 1 else found.step
    kind = ["whole"] * isinstance(found, IntDistribution) + ["log"] * found.log + [f"step {step}"] * (step is not None)
    return f"{found.low} to {found.high}" + (f" ({', '.join(kind)})" if kind else "")


def _ends(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            yield from _ends(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _distribution(name: str, end: Any) -> BaseDistribution:
    if isinstance(end, list | tuple):
        return _choices(name, end)
    if isinstance(end, Mapping):
        return _range(name, end)
    raise UserError(
        f"hydra.sweeper.space: {name} must be choices, [a, b], or a range, {{low: 0.1, high: 1.0}}, got {end!r}."
    )


def _choices(name: str, values: Iterable[Any]) -> BaseDistribution:
    choices = tuple(values)
    for value in choices:
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise UserError(f"hydra.sweeper.space: a choice of {name} must be a number, a word or null, got {value}.")
    if not choices or len(set(map(repr, choices))) < len(choices):
        raise UserError(f"hydra.sweeper.space: {name} needs choices that differ, got {list(choices)}.")
    return CategoricalDistribution(choices)


def _range(name: str, end: Mapping[str, Any]) -> BaseDistribution:
    unknown = sorted(set(end) - set(RANGE))
    if unknown or not {"low", "high"} <= set(end):
        problem = f"has {unknown[0]!r}" if unknown else "lacks one of its ends"
        raise UserError(f"hydra.sweeper.space: the range {name} {problem}: it takes {', '.join(RANGE)}.")
    low, high, log, step = end["low"], end["high"], bool(end.get("log", False)), end.get("step")
    numbers = [low, high] if step is None else [low, high, step]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise UserError(f"hydra.sweeper.space: {name} is a range of numbers, got {dict(end)}.")
    if not low < high:
        raise UserError(f"hydra.sweeper.space: {name}.low must be below {name}.high, got {low} and {high}.")
    try:
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(float(low), float(high), log=log, step=step)
    except ValueError as error:
        raise UserError(f"hydra.sweeper.space: {name}: {error}") from error


def _value(element: Any) -> Any:
    """What a parsed element of the command line means; lists and dicts stay text."""
    if isinstance(element, QuotedString):
        return element.text
    return Override._get_value_element_as_str(element) if isinstance(element, list | dict) else element


def _text(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if (_PLAIN.fullmatch(value) and value.lower() not in _OTHER_TYPES) or value.startswith(("[", "{")):
        return value
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
