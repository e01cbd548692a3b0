"""The images and categories that a JSON declares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coco_checks import MAX_SIDE, as_path, is_encodable, leaves_folder
from ..coco_json import shorten
from ..image_paths import NearMisses
from .document import Document
from .findings import Findings, is_number, numbers, usable_id


@dataclass
class ImageTable:
    """Of n images.

    Attributes:
        ids: int or str; None where it is neither.
        names: the file names that may be opened, as they are on the disk where those are near misses of what is
            declared; None for others.
        sizes: float64 (n, 2) declared height and width px; nan where they are no size.
        position: from an id to its first image.
    """

    ids: list[int | str | None]
    names: list[str | None]
    sizes: np.ndarray
    position: dict[int | str, int]


def check_images(document: Document, findings: Findings, *, absolute: bool = False) -> ImageTable:
    """Ids, sizes and file names of the images."""
    images = document.images
    ids, position = check_ids(images, "images", "image-id-twice", findings)
    sizes = np.stack([_sides(images, ids, key, findings) for key in ("height", "width")], axis=1)
    return ImageTable(ids, _names(images, ids, findings, absolute), sizes, position)


def check_ids(
    entries: list[dict], part: str, twice: str, findings: Findings, *, texts: bool = True
) -> tuple[list[int | str | None], dict[int | str, int]]:
    """Ids, and the first position of each."""
    ids: list[int | str | None] = []
    position: dict[int | str, int] = {}
    allowed = (int, str) if texts else (int,)
    kinds = Counter(type(entry.get("id")) for entry in entries)
    if texts and kinds[int] and kinds[str]:  # which can be told apart, but not be sorted or kept in one column
        allowed = (int,) if kinds[int] >= kinds[str] else (str,)
    for at, entry in enumerate(entries):
        value = entry.get("id")
        if type(value) not in allowed or (type(value) is int and abs(value) >= 2**63):
            what = "has no id" if value is None else f"has the id {shorten(value)}, unlike a number or text of its own"
            if type(value) in (int, str) and kinds[int] and kinds[str] and texts:
                what = f"has the id {shorten(value)}, while most ids are {allowed[0].__name__}"
            findings.add("wrong-type", what, part=part, at=at, id=value)
            value = usable_id(value) if texts else None
        ids.append(value)
        if value is not None and position.setdefault(value, at) != at:
            findings.add(twice, f"entry {at} has the id of entry {position[value]}", part=part, at=at, id=value)
    return ids, position


def odd_ids(ids: Sequence[int | str | None]) -> set[int]:
    """Positions of ids that `check_ids` refuses as such: none, too large, or a text among numbers or the reverse."""
    kinds = Counter(map(type, ids))
    usual = int if kinds[int] >= kinds[str] else str
    return {at for at, value in enumerate(ids) if type(value) is not usual or (usual is int and abs(value) >= 2**63)}


def _sides(images: list[dict], ids: list[Any], key: str, findings: Findings) -> np.ndarray:
    found = [image.get(key) for image in images]
    values = numbers(found)
    with np.errstate(invalid="ignore"):
        wrong = ~((values > 0) & (values < MAX_SIDE) & (values == np.floor(values)))
    for at in np.flatnonzero(wrong):
        given = found[at]
        infinite = is_number(given) and not np.isfinite(values[at])
        findings.add(
            "not-finite" if infinite else "wrong-type",
            f"no {key}" if given is None else f"{key} is {shorten(given)}, not a whole number of px above 0",
            part="images", at=at, id=ids[at], file=_shown(images[at]),
        )  # fmt: skip
    values[wrong] = np.nan
    return values


def _names(images: list[dict], ids: list[Any], findings: Findings, absolute: bool) -> list[str | None]:
    names: list[str | None] = []
    first: dict[str, int] = {}
    for at, image in enumerate(images):
        name = image.get("file_name")
        if not isinstance(name, str) or not name.strip():
            what = "no file_name" if name is None else f"file_name is {shorten(name)}, not a file's name"
            findings.add("wrong-type", what, part="images", at=at, id=ids[at])
            name = None
        elif not absolute and leaves_folder(as_path(name)):
            findings.add(
                "file-outside", f"file_name is {shorten(name)}", part="images", at=at, id=ids[at], file=name
            )  # fmt: skip
            name = None
        elif "\0" in name or not is_encodable(name):
            findings.add("wrong-type", f"file_name is {name[:80]!a}, which no file can have",
                         part="images", at=at, id=ids[at])  # fmt: skip
            name = None
        name = None if name is None else as_path(name)
        names.append(name)
        if name is not None and first.setdefault(name, at) != at:
            findings.add("file-twice", f"the same file as image {ids[first[name]]!r}",
                         part="images", at=at, id=ids[at], file=name)  # fmt: skip
    return names


def find_near_misses(folder: Path, images: ImageTable, findings: Findings) -> None:
    """Put the name of the file that is meant in place of one that is not there, where that can be told."""
    near = NearMisses(folder)
    for at, name in enumerate(images.names):
        if name is None or os.path.lexists(folder / name):
            continue
        found = near.of(name)
        if found is not None:
            findings.add("file-name-off", f"there is no such file, but {found!a}", part="images", at=at,
                         id=images.ids[at], file=name)  # fmt: skip
            images.names[at] = found


def check_categories(document: Document, findings: Findings) -> dict[int, int]:
    """The first position of each category id."""
    entries = document.categories
    ids, position = check_ids(entries, "categories", "category-id-twice", findings, texts=False)
    names: dict[str, int] = {}
    for at, entry in enumerate(entries):
        name = entry.get("name")
        if not isinstance(name, str) or not name or not is_encodable(name):
            findings.add("wrong-type", f"name is {shorten(name)!a}, not a text", part="categories", at=at, id=ids[at])
        elif names.setdefault(name, at) != at and ids[at] != ids[names[name]]:
            findings.add("category-name-twice", f"{name!a} is also the name of category {ids[names[name]]!r}",
                         part="categories", at=at, id=ids[at])  # fmt: skip
    return position


def _shown(image: dict) -> str | None:
    name = image.get("file_name")
    return name if isinstance(name, str) else None
