"""What a pickle would do, seen without doing it."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from typing import IO, Any

# A tuple can hold another twice, which holds a third twice, ...: written in a few bytes, and hashing it takes for ever.
MAX_NESTING = 1 << 20

TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
WRITES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
READS = ("GET", "BINGET", "LONG_BINGET")


def instructions(data: bytes | IO[bytes]) -> Iterator[tuple[str, Any]]:
    """(name, argument) of the instructions of one pickle.

    Raises:
        ValueError: it is no pickle, or would take memory or time out of proportion to its length.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    weights: dict[int, int] = {}  # of the tuples in the memo: how many tuples each is, written out
    stored = 0
    inside = 0  # what was read from the memo since the last tuple: part of the next one at most
    previous = ""
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        name = instruction.name
        if name in WRITES:
            place = stored if name == "MEMOIZE" else int(argument)
            if place > count:
                raise ValueError(f"place {place} of the memo after {count} instructions")
            stored += 1
            weights.pop(place, None)
            if previous in TUPLES:
                weights[place] = 1 + inside
                inside = 0
        elif name in READS:
            inside += weights.get(int(argument), 0)
        elif name == "DUP":
            inside = 2 * inside + 1
        if inside > MAX_NESTING:
            raise ValueError("tuples within tuples without end")
        yield name, argument
        previous = name


def requested_names(data: bytes | IO[bytes]) -> list[str]:
    """The names, `module.name`, that one pickle asks for, as far as they can be told without running it.

    Raises:
        ValueError: as `instructions`.
    """
    names, strings = [], []
    for name, argument in instructions(data):
        if name in ("GLOBAL", "INST"):
            names.append(argument.replace(" ", "."))
        elif name == "STACK_GLOBAL":
            names.append(".".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return names
