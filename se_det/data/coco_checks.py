"""From the objects of a COCO JSON to columns, each checked as a whole; only what fails is looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .coco_json import shorten

Id = int | str

MAX_SIDE = 2**20  # px; beyond it products of sides no longer are what they seem


def categories(path: Path, found: list[dict]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Category ids, ascending, and their names.

    Raises:
        DataError: there is none, an id is not a whole number or declared twice, or a name is missing.
    """
    if not found:
        raise DataError(f"{path}: 'categories' is empty. Declare each class with its id and name.")
    ids = _ids(path, found, "category", kinds=(int,))
    names = [category.get("name") for category in found]
    for category_id, name in zip(ids, names):
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: category {category_id} has the name {shorten(name)}. Give it a text.")
        if not is_encodable(name):
            raise DataError(f"{path}: category {category_id} has the name {name!a}, which is no text. Correct it.")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return tuple(ids[i] for i in order), tuple(names[i] for i in order)


def images(path: Path, found: list[dict], *, absolute: bool = False) -> tuple[list[Id], list[str], np.ndarray]:
    """Image ids, file names with "/" between folders, and int64 (n, 2) heights and widths px.

    Args:
        absolute: allow file names that are absolute or climb out of the folder.

    Raises:
        DataError: an id twice or not a number or text, a size missing or not positive, a file name missing, absolute,
            or leaving the folder.
    """
    if not found:
        raise DataError(f"{path}: 'images' is empty. Give the file that lists the images.")
    ids = _ids(path, found, "image", kinds=(int, str))
    sizes = np.stack([_sides(path, found, ids, key) for key in ("height", "width")], axis=1)
    return ids, _file_names(path, found, ids, absolute), sizes


def image_indices(path: Path, annotations: list[dict], ids: Sequence[Id], image_ids: Sequence[Id]) -> np.ndarray:
    """int64 (n,): the position of each annotation's image.

    Raises:
        DataError: an annotation of an image that is not in the file.
    """
    return _positions(
        path, annotations, ids, "image_id", image_ids, "which 'images' does not have. Add the image or remove the"
    )


def class_indices(path: Path, annotations: list[dict], ids: Sequence[Id], category_ids: Sequence[int]) -> np.ndarray:
    """int64 (n,): the position of each annotation's category among `category_ids`.

    Raises:
        DataError: a category that the file does not declare.
    """
    known = ", ".join(map(str, category_ids[:12])) + (", ..." if len(category_ids) > 12 else "")
    return _positions(
        path, annotations, ids, "category_id", category_ids,
        f"which 'categories' does not declare (it has {known}). Declare it, or correct the",
    )  # fmt: skip


def annotation_ids(path: Path, annotations: list[dict]) -> list[Id]:
    """The annotations' ids.

    Raises:
        DataError: an id twice, missing, or not a number or text.
    """
    return _ids(path, annotations, "annotation", kinds=(int, str))


def boxes(path: Path, annotations: list[dict], ids: Sequence[Id]) -> np.ndarray:
    """float64 (n, 4): the boxes as they stand in the file, XYWH px, all finite.

    Raises:
        DataError: a box that is not a list of four finite numbers.
    """
    found = [annotation.get("bbox") for annotation in annotations]
    sound = set(map(type, found)) <= {list} and set(map(len, found)) <= {4}
    if sound and set(map(type, chain.from_iterable(found))) <= {int, float}:
        try:
            values = np.fromiter(chain.from_iterable(found), np.float64, 4 * len(found)).reshape(-1, 4)
            # As float32 too, the precision that boxes are kept in.
            if (np.abs(values) < 1e30).all():
                return values
        except OverflowError:
            pass

    def wrong(box: Any) -> bool:
        return not (isinstance(box, list) and len(box) == 4 and all(_finite(v) and abs(v) < 1e30 for v in box))

    at = _first(found, wrong)
    what = "no bbox" if found[at] is None else f"the bbox {shorten(found[at])}"
    raise DataError(
        f"{path}: annotation {ids[at]!r} has {what}; it must be four finite numbers, [x, y, width, height] in px."
    )


def zero_area(path: Path, xywh: np.ndarray, ids: Sequence[Id], *, allowed: bool) -> np.ndarray:
    """bool (n,): boxes whose width or height is not above 0.

    Raises:
        DataError: there is one and it is not `allowed`.
    """
    empty = (xywh[:, 2] <= 0) | (xywh[:, 3] <= 0)
    if empty.any() and not allowed:
        at = int(np.argmax(empty))
        more = int(empty.sum()) - 1
        others = f" ({more} more such box{'es' if more > 1 else ''})" if more else ""
        raise DataError(
            f"{path}: annotation {ids[at]!r} has the bbox {xywh[at].tolist()}, which has no area{others}. A bbox is "
            "[x, y, width, height] with width and height above 0: correct or remove it."
        )
    return empty


def crowds(path: Path, annotations: list[dict], ids: Sequence[Id]) -> np.ndarray:
    """bool (n,): `iscrowd`; a missing one is False.

    Raises:
        DataError: it is neither 0 nor 1.
    """
    found = [annotation.get("iscrowd", 0) for annotation in annotations]
    if not (set(map(type, found)) <= {int, bool} and set(found) <= {0, 1}):
        at = _first(found, lambda v: type(v) not in (int, bool) or v not in (0, 1))
        raise DataError(f"{path}: annotation {ids[at]!r} has iscrowd {shorten(found[at])}; it must be 0 or 1.")
    return np.fromiter(found, bool, len(found))


def areas(path: Path, annotations: list[dict], ids: Sequence[Id], xywh: np.ndarray) -> np.ndarray:
    """float64 (n,): `area` px^2; where it is missing, the box's.

    Raises:
        DataError: it is not a finite number from 0 on.
    """
    found = [annotation.get("area") for annotation in annotations]
    if set(map(type, found)) <= {int, float, type(None)}:
        try:
            values = np.array(found, np.float64)  # None becomes nan
            given = np.fromiter((v is not None for v in found), bool, len(found))
            if (np.isfinite(values[given]) & (values[given] >= 0)).all():
                return np.where(given, values, xywh[:, 2] * xywh[:, 3])
        except OverflowError:
            pass
    at = _first(found, lambda v: v is not None and not (_finite(v) and v >= 0))
    raise DataError(
        f"{path}: annotation {ids[at]!r} has area {shorten(found[at])}; it must be a number from 0 on. Correct it, or "
        "remove the key to have it computed."
    )


def _ids(path: Path, found: list[dict], what: str, *, kinds: tuple[type, ...]) -> list[Any]:
    ids = [entry.get("id") for entry in found]
    types = set(map(type, ids))
    if types - set(kinds):
        at = _first(ids, lambda v: type(v) not in kinds)
        given = "no id" if ids[at] is None else f"the id {shorten(ids[at])}"
        form = "a whole number" if kinds == (int,) else "a whole number or a text"
        raise DataError(f"{path}: {what} number {at} (from 0) has {given}; each needs {form} of its own.")
    if len(types) > 1:
        texts = [next(v for v in ids if type(v) is kind) for kind in (int, str)]
        raise DataError(f"{path}: {what} ids are numbers and texts ({texts[0]!r}, {texts[1]!r}). Use one of the two.")
    if types == {int} and max(map(abs, ids)) >= 2**63:
        at = _first(ids, lambda v: abs(v) >= 2**63)
        raise DataError(f"{path}: {what} id {shorten(ids[at])} is too large: ids must be below 2^63.")
    if len(set(ids)) != len(ids):
        seen: set[Id] = set()
        twice = next(v for v in ids if v in seen or seen.add(v))
        raise DataError(f"{path}: {what} id {twice!r} is there twice. Give each {what} an id of its own.")
    return ids


def _sides(path: Path, found: list[dict], ids: Sequence[Id], key: str) -> np.ndarray:
    sides = [image.get(key) for image in found]
    if set(map(type, sides)) - {int} or min(sides) <= 0 or max(sides) >= MAX_SIDE:
        for at, side in enumerate(sides):
            if type(side) is float and side.is_integer() and 0 < side < MAX_SIDE:
                sides[at] = int(side)
            elif type(side) is not int or not 0 < side < MAX_SIDE:
                given = f"no {key}" if side is None else f"{key} {shorten(side)}"
                raise DataError(
                    f"{path}: image {ids[at]!r} has {given}; it must be a whole number of px above 0 (and below "
                    f"{MAX_SIDE}), that of the image as it is shown."
                )
    return np.array(sides, np.int64)


def as_path(name: str) -> str:
    """A file name with the backslashes that Windows' programs write read as slashes."""
    return name.replace("\\", "/")


def leaves_folder(name: str) -> bool:
    """Whether a file name (`as_path`) is absolute, or climbs with ".."."""
    return name.startswith("/") or (name[1:2] == ":" and name[0].isalpha()) or ".." in name.split("/")


def _file_names(path: Path, found: list[dict], ids: Sequence[Id], absolute: bool) -> list[str]:
    names = [image.get("file_name") for image in found]
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            given = "no file_name" if name is None else f"the file_name {shorten(name)}"
            raise DataError(f"{path}: image {ids[at]!r} has {given}. Give the path of its file in the image folder.")
        names[at] = as_path(name)
        if not absolute and leaves_folder(names[at]):
            raise DataError(
                f"{path}: image {ids[at]!r} has the file_name {shorten(name)}, which leaves the image folder. Make it "
                "a path below that folder, without a leading slash and without '..'; or, if the file is to be trusted, "
                "set DATASETS.ABSOLUTE_FILE_NAMES True."
            )
        if "\0" in name or not is_encodable(name):
            raise DataError(
                f"{path}: image {ids[at]!r} has the file_name {name[:80]!a}, which no file can have. Correct it."
            )
    return names


def _positions(
    path: Path, annotations: list[dict], ids: Sequence[Id], key: str, known: Sequence[Id], fault: str
) -> np.ndarray:
    found = [annotation.get(key) for annotation in annotations]
    position = {value: index for index, value in enumerate(known)}
    # By type first: True and 1.0 would be found as 1, and a list cannot be looked up at all.
    if set(map(type, found)) <= set(map(type, known)):
        positions = np.fromiter((position.get(v, -1) for v in found), np.int64, len(found))
        if (positions >= 0).all():
            return positions
    kinds = set(map(type, known))
    at = _first(found, lambda v: type(v) not in kinds or v not in position)
    given = f"no {key}" if found[at] is None else f"{key} {shorten(found[at])}, {fault}"
    raise DataError(f"{path}: annotation {ids[at]!r} has {given}{'.' if found[at] is None else ' annotation.'}")


def _finite(value: Any) -> bool:
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def is_encodable(text: str) -> bool:
    """JSON can hold half of a character ("\\ud800"), which can be neither printed nor written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(values: Sequence[Any], wrong: Callable[[Any], bool]) -> int:
    return next(at for at, value in enumerate(values) if wrong(value))
