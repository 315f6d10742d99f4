"""What a setting may be, and how that is said to the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a setting must be.

    Attributes:
        allows: Whether a value is allowed.
        words: The same for the user: "a whole number of at least 1".
    """

    allows: Callable[[Any], bool]
    words: str

    def __or__(self, other: Rule) -> Rule:
        """Either."""
        return Rule(lambda value: self.allows(value) or other.allows(value), f"{self.words}, or {other.words}")


def whole(least: int) -> Rule:
    """A whole number from `least` on."""
    return Rule(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least, f"a whole number of at least {least}"
    )


def number(least: float, most: float = float("inf")) -> Rule:
    """A number from `least` to `most`."""
    words = f"a number of at least {least:g}" if most == float("inf") else f"a number from {least:g} to {most:g}"
    return Rule(lambda v: isinstance(v, int | float) and not isinstance(v, bool) and least <= v <= most, words)


def one_of(*choices: Any) -> Rule:
    """One of some values."""
    said = {None: "null", True: "true", False: "false"}
    # 1 == True: the kinds must agree too.
    return Rule(
        lambda v: any(v == choice and type(v) is type(choice) for choice in choices),
        " or ".join(said.get(choice, str(choice)) for choice in choices),
    )


POSITIVE = Rule(lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > 0, "a number above 0")
SHARE = Rule(lambda v: isinstance(v, float) and 0 <= v <= 1, "a share from 0.0 to 1.0")
NULL = one_of(None)
