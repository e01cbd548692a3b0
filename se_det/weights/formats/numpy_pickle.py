"""Pickles of NumPy arrays (Detectron2's `.pkl`), read without building anything but arrays and plain containers.

No function or class of the pickle is ever looked up: the few names that NumPy's own pickles use stand for the small
stand-ins below, which check what they are given, and any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError
from .pickle_scan import instructions

# Instructions that data needs. Left out: copies of the stack, persistent ids, extension codes, classic instances,
# whatever calls __new__, and buffers from outside.
INSTRUCTIONS = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD""".split()  # noqa: SIM905
)
DTYPES = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"))


def read_numpy_pickle(path: str | Path) -> Any:
    """The content of a pickle of arrays: dicts, lists, tuples, numbers, strings and `np.ndarray` of numbers.

    Raises:
        WeightsError: the file is damaged, or asks for anything else; the sentence names what it asked for.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        _check_instructions(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load())
    except _UnsafePickleError as reason:
        raise WeightsError(
            f"{path} is refused: it asks for {reason}, and only arrays and plain containers are read."
        ) from reason
    # As with any damaged file, which bytes are missing decides what is raised.
    except Exception as reason:
        raise WeightsError(f"{path} is damaged or is not a pickle of arrays.") from reason


class _UnsafePickleError(Exception):
    """Something that no file of weights needs; the text names it."""


def _check_instructions(data: bytes) -> None:
    for name, argument in instructions(data):
        if name in ("GLOBAL", "INST"):
            _stand_in(*argument.split(" ", 1))
        if name not in INSTRUCTIONS:
            raise _UnsafePickleError(f"the instruction {name}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise _UnsafePickleError("an object from outside the file")


class _Callable:
    """What a name stands for: a new object each time, without attributes, so that a pickle cannot change any."""

    __slots__ = ("_call",)

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _UnsafePickleError("a change of a function")


class _DType:
    """The description of an array's elements."""

    __slots__ = ("code",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in DTYPES:
            raise _UnsafePickleError(
                f"an array of {code[:20]!r}" if isinstance(code, str) else "an unknown kind of array"
            )
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.code = {"<": "<", ">": ">", "|": "|"}[order] + self.code


class _Array:
    """An array whose shape and bytes are still to come."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _make_array(raw, dtype, shape, "F" if fortran else "C")


def _make_array(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise _UnsafePickleError("an array of objects")
    if isinstance(raw, str):  # written by Python 2
        raw = raw.encode("latin1")
    kind = np.dtype(dtype.code)
    shape = tuple(int(side) for side in (shape if isinstance(shape, tuple) else (shape,)))
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes are no array of {shape}")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(encoding, str) or encoding != "latin1":
        raise _UnsafePickleError("_codecs.encode to something else than latin1")
    return text.encode("latin1")


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise _UnsafePickleError("an enumeration of something else than numbers")
    return value


def _scalar(dtype: Any, raw: Any) -> Any:
    return _make_array(raw, dtype, ()).item()


_ARRAY_TYPE = "ndarray"


def _stand_in(module: str, name: str) -> Any:
    """The stand-in for a name of NumPy's pickles; every other name is refused."""
    package = module.replace("numpy._core.", "numpy.core.")
    call = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy.core.numeric", "_frombuffer"): _make_array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): dict,
        ("detectron2.structures.boxes", "BoxMode"): _integer,  # an enumeration, of a file of proposals
    }.get((package, name))
    if call is not None:
        return _Callable(call)
    if (package, name) == ("numpy", "ndarray"):
        return _ARRAY_TYPE
    raise _UnsafePickleError(f"{module}.{name}")


def _plain(content: Any) -> Any:
    """`content` with its arrays in place of the stand-ins, two containers deep, as weights and proposals lie."""
    return {key: _within(value) for key, value in content.items()} if isinstance(content, dict) else _array(content)


def _within(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _array(inner) for key, inner in value.items()}
    return [_array(inner) for inner in value] if isinstance(value, list) else _array(value)


def _array(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value
