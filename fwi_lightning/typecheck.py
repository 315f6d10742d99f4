"""Whether a value from a configuration fits the annotation of the argument that it is for."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "null"}


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function's arguments; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; of annotations that say nothing about plain values, yes.

    Args:
        value: A plain value, list or dict, or an object that was built.
        hint: The annotation, resolved.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is typing.Annotated:
        return fits(value, inner[0])
    kind = origin or hint
    if kind is float or kind is int:
        # Python takes True for 1; here it is a slip.
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if isinstance(value, str):  # a sequence too, but no list
        return kind in (str, object)
    if isinstance(value, list | tuple) and issubclass(kind, Sequence):
        return _items_fit(value, kind, inner)
    if isinstance(value, Mapping) and issubclass(kind, Mapping):
        return len(inner) != 2 or all(fits(one, inner[1]) for one in value.values())
    return isinstance(value, kind)


def _items_fit(values: Sequence[Any], kind: type, inner: tuple[Any, ...]) -> bool:
    """Whether the items of a list are of the types within the annotation of a list or tuple."""
    if not inner:
        return True
    if issubclass(kind, tuple) and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return all(fits(value, inner[0]) for value in values)


def words(hint: Any) -> str:
    """An annotation in words for an error message: "a whole number or null"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # A path or a tensor is nothing that a configuration could hold.
        said = [words(one) for one in inner if one in WORDS or typing.get_origin(one) is not None]
        return " or ".join(dict.fromkeys(said))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    kind = origin or hint
    if kind in WORDS:
        return WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        several = issubclass(kind, tuple) and inner and inner[-1] is not Ellipsis
        items = f"{len(inner)} times {words(inner[0])}" if several else f"each {words(inner[0])}" if inner else ""
        return f"a list ({items})" if items else "a list"
    return getattr(kind, "__name__", str(kind))
