"""Open Images: CSV files of boxes in shares of the image, and of the names of their classes' codes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from .csv_rows import beginning, rows, shorten_row
from .protocol import Category, Found, Picture, Reading, Shape
from .reading import class_name, number
from .tree import Tree, extension, split_of

NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_CODE = re.compile(r"/[mgt]/\w+")


class OpenImagesFormat:
    """A CSV with ImageID, LabelName, XMin, XMax, YMin, YMax."""

    name = "Open Images"
    looks_for = "a .csv with ImageID, LabelName, XMin, XMax, YMin, YMax"

    def recognise(self, tree: Tree) -> Found | None:
        """By the header."""
        files = [tree.chosen] if tree.chosen.is_file() else tree.of("csv")
        files = [path for path in files if extension(path.name) == "csv" and is_open_images(beginning(path))]
        if not files:
            return None
        return Found(self, ", ".join(os.path.relpath(path, tree.root) for path in files[:3]), tuple(files))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read the files; boxes of images that are not there, of a part of the set, are counted."""
        names = _names(tree)
        reading = Reading(splits={}, categories=[])
        by_split: dict[str, list[Path]] = defaultdict(list)
        for path in found.files:
            by_split[split_of(path, tree.root) or "train"].append(path)
        if not names:
            reading.notes.append("there is no class-descriptions CSV: classes are called by their codes")
        for split, paths in by_split.items():
            reading.splits[split] = _pictures(paths, split, tree, names, reading)
        return reading


def is_open_images(some: list[list[str]]) -> bool:
    """Whether the first rows of a CSV have the header of Open Images' boxes."""
    return bool(some) and set(NEEDED) <= {cell.strip() for cell in some[0]}


def _names(tree: Tree) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in tree.of("csv"):
        some = beginning(path)[:3]
        if some and all(len(row) == 2 for row in some) and _CODE.fullmatch(some[-1][0].strip()):
            names |= {row[0]: row[1] for _, row in rows(path) if len(row) == 2 and _CODE.fullmatch(row[0])}
    return names


def _pictures(paths: list[Path], split: str, tree: Tree, names: dict[str, str], reading: Reading) -> Iterator[Picture]:
    pictures: dict[str, Picture] = {}
    missing: set[str] = set()
    known = {category.name for category in reading.categories}
    for path in paths:
        columns: dict[str, int] = {}
        bases = [
            folder / part
            for folder in (path.parent, path.parent.parent)
            for part in (split, f"images/{split}", "images")
        ]
        if split == "val":
            bases += [path.parent / "validation", path.parent.parent / "images" / "validation"]
        for line, row in rows(path):
            where = f"{path}, line {line}"
            if not columns:
                columns = {cell: at for at, cell in enumerate(row)}
                continue
            if len(row) < len(columns):
                raise DataError(
                    f"{where} has {len(row)} cells, {shorten_row(row)}, not {len(columns)}. Correct the line."
                )
            image = row[columns["ImageID"]]
            if image in missing or (image not in pictures and not _add(image, pictures, bases, tree, where)):
                missing.add(image)
                reading.skipped["boxes of images that are not there"] += 1
                continue
            if "Confidence" in columns and row[columns["Confidence"]] in ("0", "0.0"):
                reading.skipped["boxes of confidence 0"] += 1
                continue
            code = class_name(row[columns["LabelName"]], where, "LabelName")
            name = names.get(code, code)
            if name not in known:
                known.add(name)
                reading.categories.append(Category(name))
            x1, x2, y1, y2 = (number(row[columns[key]], where, key) for key in NEEDED[2:])
            wrong = next((v for v in (x1, x2, y1, y2) if not -0.1 <= v <= 1.1), None)
            if wrong is not None:
                raise DataError(f"{where}: {wrong:g} is no share of the image's side, from 0 to 1. Correct the line.")
            crowd = "IsGroupOf" in columns and row[columns["IsGroupOf"]] == "1"
            width, height = tree.sizes[pictures[image].path].shown
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            pictures[image].shapes.append(Shape(name, box=box, crowd=crowd))
    yield from pictures.values()


def _add(image: str, pictures: dict[str, Picture], bases: list[Path], tree: Tree, where: str) -> bool:
    found = tree.images.find(image, bases, where) if image else None
    if found is not None:
        pictures[image] = Picture(found, [], where)
    return found is not None
