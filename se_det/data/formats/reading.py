"""Reading the files of annotation formats: texts, numbers, XML without entities, JSON without surprises."""

from __future__ import annotations

import contextlib
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import open_regular_file
from ..coco_json import PackedPolygons, load_json, shorten

FARTHEST = 2**24  # px, or shares: float32 still tells whole numbers apart
MOST_TEXT = 2**31  # bytes of one file


class _LeftInPlace(PackedPolygons):
    def take(self, found: dict[str, Any]) -> dict[str, Any]:
        return found


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read or is not JSON.
    """
    return load_json(path, _LeftInPlace())


def read_bytes(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open_regular_file(path) as file:
            data = file.read(MOST_TEXT)
    except OSError as error:
        raise DataError(f"The annotation file {path} cannot be read: {error.strerror or error}.") from error
    return data


def read_text(path: Path) -> str:
    """The text of a file: UTF-8 with or without a mark, or UTF-16 with one.

    Raises:
        DataError: it cannot be read, or is no such text.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}): save it as UTF-8.") from error


def read_xml(path: Path) -> ElementTree.Element:
    """The root element of an XML file. One that declares a document type or entities is refused: entities can read
    other files and grow without bound.

    Raises:
        DataError: it cannot be read, is not XML, or declares a document type.
    """
    data = read_bytes(path)
    plain = data.replace(b"\0", b"")  # UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise DataError(f"{path} declares a document type (<!DOCTYPE or <!ENTITY), which is not read: remove it.")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        what = "is empty" if not data.strip() else f"is not XML: {error}"
        raise DataError(f"{path} {what}. Write or copy it again.") from error


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(value: Any, where: str, what: str) -> float:
    """A finite number that stands in a file as such or as text.

    Raises:
        DataError: it is none; `where` and `what` name its place.
    """
    found = math.nan
    if type(value) in (int, float):
        with contextlib.suppress(OverflowError):
            found = float(value)
    elif isinstance(value, str) and len(value) < 400 and _NUMBER.fullmatch(value.strip()):
        found = float(value)
    if not abs(found) <= FARTHEST:  # nan too
        given = "is missing" if value is None else f"is {shorten(value)}"
        raise DataError(f"{where}: {what} {given}; it must be a number (below {FARTHEST}). Correct it.")
    return found


def whole(value: Any, where: str, what: str) -> int:
    """A whole number, also one that is written as 3.0.

    Raises:
        DataError: as `number`.
    """
    found = number(value, where, what)
    if found != int(found):
        raise DataError(f"{where}: {what} is {shorten(value)}; it must be a whole number. Correct it.")
    return int(found)


def class_name(value: Any, where: str, what: str = "the class name") -> str:
    """A class's name, without the blanks around it.

    Raises:
        DataError: it is empty or no text that can be written.
    """
    name = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = ""
    if not name:
        given = "is missing" if value is None else f"is {shorten(value)}"
        raise DataError(f"{where}: {what} {given}; it must be a text. Give each object its class.")
    return name
