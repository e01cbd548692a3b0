"""Config keys on the command line: `KEY=VALUE` in every command, and `KEY VALUE` where it takes no other words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigError

# MODEL.GATE.NAME, SEED. A key in lower case is passed on, to be named as an unknown one; a.jpg=b is a file's name.
SECTIONS = "model|input|datasets|dataloader|solver|test"
ASSIGNMENT = re.compile(rf"([A-Z][A-Z0-9_]*(?:\.\w+)*|(?:{SECTIONS})(?:\.\w+)+)=(.*)", re.DOTALL)


def is_assignment(word: str) -> bool:
    """Whether a word is `KEY=VALUE`."""
    return ASSIGNMENT.fullmatch(word) is not None


def is_key(word: str) -> bool:
    """Whether a word looks like a key, such as MODEL.GATE.NAME or SEED."""
    return ASSIGNMENT.fullmatch(f"{word}=") is not None


def parse_overrides(words: Sequence[str]) -> list[str]:
    """`KEY=VALUE` and `KEY VALUE` in any mixture as `[key, value, key, value, ...]`.

    Raises:
        ConfigError: a key without a value.
    """
    pairs: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        assigned = ASSIGNMENT.fullmatch(word)
        if assigned:
            pairs += assigned.groups()
            continue
        if waiting[:1] == ["="]:
            waiting.pop(0)
        if not waiting:
            raise ConfigError(f"'{word}' has no value: write {word}=VALUE or {word} VALUE.")
        pairs += (word, waiting.pop(0))
    return pairs


def split_assignments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that are no `KEY=VALUE`, and the others as `[key, value, ...]`."""
    others = [word for word in words if not is_assignment(word)]
    return others, parse_overrides([word for word in words if is_assignment(word)])
