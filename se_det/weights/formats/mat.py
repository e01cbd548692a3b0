"""MATLAB's `.mat` files up to version 7 (the MAT-file level 5 format), as far as weights need them.

A reader of our own, because SciPy would be a dependency for this one format. It knows numbers, characters, cells and
structs; objects and functions are left out. Format: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError

MAX_BYTES = 1 << 32  # of one unpacked variable
MAX_DEPTH = 16

# Types of data elements ("mi"), and classes of arrays ("mx").
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1",
         17: "u2", 18: "u4"}  # fmt: skip
MATRIX, COMPRESSED, UTF8, UTF16, UTF32 = 14, 15, 16, 17, 18
CELL, STRUCT, CHAR = 1, 2, 4
NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


def read_mat(path: str | Path) -> dict[str, Any]:
    """The variables of a file by name: arrays, strings, lists (cells) and lists of dicts (structs, one per element).

    Raises:
        WeightsError: the file is damaged, of version 7.3 (HDF5), or no MAT file.
    """
    path = Path(path)
    data = memoryview(path.read_bytes())
    if bytes(data[:10]) == b"MATLAB 7.3" or bytes(data[:4]) == b"\x89HDF":
        raise WeightsError(f"{path} is a MAT file of version 7.3: save it again in MATLAB with save(..., '-v7').")
    try:
        order = {b"IM": "<", b"MI": ">"}[bytes(data[126:128])]
        reader = _Reader(order)
        return dict(reader.variable(kind, body) for kind, body in reader.elements(data[128:]))
    except Exception as reason:  # what a damaged file raises depends on where it is damaged
        raise WeightsError(f"{path} is damaged or is not a MAT file.") from reason


class _Reader:
    """Reads elements of one byte order."""

    def __init__(self, order: str) -> None:
        self.order = order

    def elements(self, data: memoryview) -> list[tuple[int, memoryview]]:
        """(type, content) of the elements that follow one another in `data`."""
        found = []
        position = 0
        while position + 8 <= len(data):
            kind, size = (int(v) for v in np.frombuffer(data[position : position + 8], self.order + "u4"))
            if kind >> 16:  # up to four bytes stand in the tag itself
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
                position += 8
            else:
                start = position + 8
                # Elements are padded to 8 bytes, compressed ones are not.
                position = start + (size if kind == COMPRESSED else -(-size // 8) * 8)
            if start + size > len(data):
                raise ValueError("an element ends after the file")
            found.append((kind, data[start : start + size]))
        return found

    def variable(self, kind: int, body: memoryview) -> tuple[str, Any]:
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(body, MAX_BYTES)
            if not unpacker.eof:
                raise ValueError("a compressed variable is cut short or too large")
            kind, body = self.elements(memoryview(unpacked))[0]
        if kind != MATRIX:
            raise ValueError(f"a variable of the type {kind}")
        return self.matrix(body)

    def matrix(self, body: memoryview, depth: int = 0) -> tuple[str, Any]:
        """(name, value) of an array."""
        if depth > MAX_DEPTH:
            raise ValueError("too many structs within structs")
        if not len(body):
            return "", np.zeros((0, 0))
        parts = self.elements(body)
        kind = int(self.numbers(parts[0])[0]) & 0xFF
        shape = [int(side) for side in self.numbers(parts[1])]
        name = bytes(parts[2][1]).decode("latin1")
        rest = parts[3:]
        if kind in NUMBERS:
            values = self.numbers(rest[0]).astype(NUMBERS[kind])
            return name, values.reshape(shape, order="F")
        if kind == CHAR:
            return name, self.text(rest[0]) if rest else ""
        if kind == CELL:
            return name, [self.matrix(part, depth + 1)[1] for _, part in rest]
        if kind == STRUCT:
            return name, self.struct(rest, math.prod(shape), depth)
        return name, None  # objects, functions and sparse arrays, which weights do not come in

    def struct(self, parts: list[tuple[int, memoryview]], count: int, depth: int) -> list[dict[str, Any]]:
        width = int(self.numbers(parts[0])[0])
        text = bytes(parts[1][1])
        names = [text[i : i + width].split(b"\0")[0].decode("latin1") for i in range(0, len(text), width)]
        values = parts[2:]
        if len(values) != count * len(names):
            raise ValueError("a struct lacks fields")
        return [
            {
                name: self.matrix(part, depth + 1)[1]
                for name, (_, part) in zip(names, values[i * len(names) : (i + 1) * len(names)])
            }
            for i in range(count)
        ]

    def numbers(self, element: tuple[int, memoryview]) -> np.ndarray:
        kind, body = element
        return np.frombuffer(body, self.order + TYPES[kind])

    def text(self, element: tuple[int, memoryview]) -> str:
        kind, body = element
        if kind == UTF8:
            return bytes(body).decode("utf-8")
        return "".join(map(chr, self.numbers(element)))
