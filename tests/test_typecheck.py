"""Plain values against annotations."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from fwi_lightning.typecheck import fits, hints_of, words


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        (1, float, True),
        ("1", float, False),
        (False, bool, True),
        (0, bool, False),
        (None, int | None, True),
        ("x", int | None, False),
        ("x", Any, True),
        ([1, 2], Sequence[int], True),
        ([1, "x"], Sequence[int], False),
        ("ab", Sequence[str], False),
        ([0.9, 0.99], tuple[float, float], True),
        ([0.9], tuple[float, float], False),
        ((1, 2, 3), tuple[int, ...], True),
        ({"a": 1.0}, Mapping[str, float], True),
        ({"a": "x"}, Mapping[str, float], False),
        ("min", Literal["min", "max"], True),
        ("least", Literal["min", "max"], False),
        (0.1, float | torch.Tensor, True),
        ("x", float | torch.Tensor, False),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (int | None, "a whole number or null"),
        (float | torch.Tensor, "a number"),
        (tuple[float, float], "a list (2 times a number)"),
        (Sequence[str], "a list (each a word)"),
        (Literal["min", "max"], "'min' or 'max'"),
    ],
)
def test_words(hint, said):
    assert words(hint) == said


def test_annotations_that_cannot_be_resolved_ask_for_nothing():
    def function(x: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        """Annotated with a name that does not exist."""

    assert hints_of(function) == {}
