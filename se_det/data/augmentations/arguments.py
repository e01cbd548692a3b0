"""Checks of the arguments that entries of INPUT.AUGMENTATIONS give: an error says which, and what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError


def number(owner: Any, name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value`, when it is a number from `low` to `high`.

    Args:
        owner: the augmentation, which the sentence names by its class.

    Raises:
        ConfigError: it is not.
    """
    if not _within(value, low, high):
        raise _error(owner, name, value, f"a number {_range(low, high)}")
    return value


def whole_number(owner: Any, name: str, value: Any, low: int, high: float = math.inf) -> int:
    """The same for a whole number."""
    if not isinstance(value, int) or not _within(value, low, high):
        raise _error(owner, name, value, f"a whole number {_range(low, high)}")
    return value


def span(owner: Any, name: str, value: Any, low: float, high: float = math.inf) -> tuple[float, float]:
    """`value` as two numbers from `low` to `high`, when the first is not above the second.

    Raises:
        ConfigError: it is not.
    """
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(pair) != 2 or not all(_within(side, low, high) for side in pair) or pair[0] > pair[1]:
        raise _error(owner, name, value, f"two numbers {_range(low, high)}, the lower first")
    return pair


def size(owner: Any, name: str, value: Any) -> tuple[int, int]:
    """`value` as (height, width) px; a single number is both.

    Raises:
        ConfigError: it is neither.
    """
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2 or not all(isinstance(side, int) and _within(side, 1, math.inf) for side in pair):
        raise _error(owner, name, value, "a whole number of px above 0, or two: height and width")
    return pair


def one_of(owner: Any, name: str, value: Any, known: Sequence[str]) -> str:
    """`value`, when it is one of `known`.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        raise _error(owner, name, value, f"one of {', '.join(known)}")
    return value


def flag(owner: Any, name: str, value: Any) -> bool:
    """`value`, when it is true or false.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, bool):
        raise _error(owner, name, value, "true or false")
    return value


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high


def _range(low: float, high: float) -> str:
    return f"of at least {low}" if high == math.inf else f"between {low} and {high}"


def _error(owner: Any, name: str, value: Any, form: str) -> ConfigError:
    return ConfigError(f"{type(owner).__name__}'s {name} is {value!r}; it must be {form}.")
