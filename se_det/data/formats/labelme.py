"""LabelMe: a JSON per image, with rectangles, polygons, circles and masks."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import DataError
from ...files import open_regular_file
from ..coco_json import shorten
from .protocol import Found, Picture, Reading, Shape
from .reading import class_name, number, read_json, whole
from .tree import Tree, split_of

LOOKED_AT = 5  # JSON files of a folder
NO_OBJECTS = ("__ignore__", "_background_")  # labels that LabelMe's own converters leave out
CIRCLE = 72  # corners of a circle
LARGEST = 2**28  # px of a mask
_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_OTHERS = (b'"imagePath"', b'"imageData"', b'"imageWidth"', b'"imageHeight"')


class LabelMeFormat:
    """JSON files with `shapes` and `imagePath`."""

    name = "LabelMe"
    looks_for = "a .json with shapes and imagePath per image"

    def recognise(self, tree: Tree) -> Found | None:
        """By the first JSON files of each folder."""
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in tree.of("json"):
            by_folder[path.parent].append(path)
        if tree.chosen.is_file():
            by_folder = {tree.chosen.parent: [tree.chosen]} if tree.chosen.suffix.lower() == ".json" else {}
        folders = [folder for folder, paths in by_folder.items() if any(map(_is_labelme, paths[:LOOKED_AT]))]
        if not folders:
            return None
        shown = os.path.relpath(folders[0], tree.root)
        where = "the folder itself" if shown == "." else shown
        return Found(self, f"JSON files with shapes and imagePath in {where}", tuple(sorted(folders)))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Group the files by split; each is read when its turn comes."""
        folders = {folder for folder in found.files if folder.is_relative_to(tree.chosen)} or set(found.files)
        files = [path for path in tree.of("json") if path.parent in folders]
        if tree.chosen.is_file():
            files = [tree.chosen]
        splits: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            splits[split_of(path.parent / "x", tree.root) or "train"].append(path)
        reading = Reading(splits={})
        for split, paths in splits.items():
            reading.splits[split] = _pictures(paths, tree, reading)
        return reading


def _is_labelme(path: Path) -> bool:
    try:
        with open_regular_file(path) as file:
            data = file.read(2**26)
    except OSError:
        return False
    return bool(_SHAPES.search(data)) and any(key in data for key in _OTHERS)


def _pictures(paths: list[Path], tree: Tree, reading: Reading) -> Iterator[Picture]:
    for path in paths:
        content = read_json(path)
        if not isinstance(content, dict) or "shapes" not in content:
            reading.skipped["JSON files without shapes"] += 1
            continue
        shapes = content["shapes"]
        if not isinstance(shapes, list):
            raise DataError(f"{path}: its shapes are {shorten(shapes)}; they must be a list.")
        image = _image(path, content, tree)
        sides = [content.get(key) for key in ("imageWidth", "imageHeight")]
        declared = None
        if all(side is not None for side in sides):
            declared = tuple(whole(side, str(path), "its imageWidth or imageHeight") for side in sides)
        yield Picture(
            image, _shapes(shapes, path, reading), str(path), declared if declared and all(declared) else None
        )


def _image(path: Path, content: dict, tree: Tree) -> Path:
    named = content.get("imagePath")
    named = named if isinstance(named, str) and named else path.stem
    # As it is written, beside the JSON, or, where files were renamed together, by the JSON's own name.
    text = named.replace("\\", "/")
    exact = Path(os.path.normpath(path.parent / text)) if "\0" not in text else path
    if exact in tree.images:
        return exact
    places = [path.parent, path.parent.parent / "images", path.parent.parent]
    for name in (os.path.basename(text), path.stem):
        found = tree.images.find(name, places, str(path)) if name else None
        if found is not None:
            return found
    hint = " The JSON holds the image itself (imageData): write it to a file first." if content.get("imageData") else ""
    raise DataError(f"{path}: there is no image {named!r} in {tree.root}. Put it beside the JSON.{hint}")


def _shapes(found: list[Any], path: Path, reading: Reading) -> list[Shape]:
    shapes: list[Shape] = []
    groups: dict[tuple[str, Any], Shape] = {}
    for at, item in enumerate(found):
        where = f"{path}: shape {at}"
        if not isinstance(item, dict):
            raise DataError(f"{where} is {shorten(item)}; it must be an object.")
        label = class_name(item.get("label"), where, "its label")
        kind = item.get("shape_type") or "polygon"
        if label in NO_OBJECTS:
            reading.skipped[f"shapes labelled {label}"] += 1
            continue
        if kind not in ("rectangle", "polygon", "circle", "mask", "rotation"):
            reading.skipped[f"shapes of the type {str(kind)[:40]!r}"] += 1
            continue
        shape = _shape(kind, item, label, where, reading)
        group = item.get("group_id")
        if shape is None:
            continue
        grouped = isinstance(group, (int, str))
        if grouped and (label, group) in groups and _join(groups[label, group], shape):
            continue
        if grouped:
            groups.setdefault((label, group), shape)
        shapes.append(shape)
    return shapes


def _shape(kind: str, item: dict, label: str, where: str, reading: Reading) -> Shape | None:
    points = item.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) >= 2 for point in points):
        raise DataError(f"{where}: its points are {shorten(points)}; they must be a list of [x, y].")
    xy = [(number(x, where, "an x of its points"), number(y, where, "a y of its points")) for x, y, *_ in points]
    least = {"rectangle": 2, "circle": 2, "mask": 2, "polygon": 3, "rotation": 3}[kind]
    if len(xy) < least:
        reading.skipped[f"shapes of the type {kind!r} with fewer than {least} points"] += 1
        return None
    xs, ys = [x for x, _ in xy], [y for _, y in xy]
    if kind == "rectangle":
        return Shape(label, box=(min(xs), min(ys), max(xs), max(ys)))
    if kind == "circle":
        (cx, cy), radius = xy[0], math.dist(xy[0], xy[1])
        turns = [2 * math.pi * at / CIRCLE for at in range(CIRCLE)]
        polygon = [v for turn in turns for v in (cx + radius * math.cos(turn), cy + radius * math.sin(turn))]
        return Shape(label, polygons=[polygon] if radius > 0 else [], box=None if radius > 0 else (cx, cy, cx, cy))
    if kind == "mask":
        return Shape(label, mask=_mask(item.get("mask"), where), corner=(round(min(xs)), round(min(ys))))
    return Shape(label, polygons=[[v for point in xy for v in point]])


def _mask(text: Any, where: str) -> np.ndarray:
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            mask = np.asarray(picture.convert("L") if picture.mode not in ("1", "L", "P") else picture)
    except (TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"{where}: its mask is {shorten(text)}, not a PNG in base64. Draw it again.") from error
    except Exception as error:  # of Pillow, of many kinds
        raise DataError(f"{where}: its mask is no PNG that can be read: {error}. Draw it again.") from error
    return mask != 0


def _join(one: Shape, other: Shape) -> bool:
    """Make two shapes of a group one object: polygons are collected, masks or boxes united. False, and nothing is
    done, for a mask with something else."""
    if (one.mask is None) != (other.mask is None):
        return False
    if one.mask is not None and other.mask is not None:
        left, top = min(one.corner[0], other.corner[0]), min(one.corner[1], other.corner[1])
        right = max(s.corner[0] + s.mask.shape[1] for s in (one, other))
        bottom = max(s.corner[1] + s.mask.shape[0] for s in (one, other))
        if (right - left) * (bottom - top) > LARGEST:
            return False
        united = np.zeros((bottom - top, right - left), bool)
        for s in (one, other):
            y, x = s.corner[1] - top, s.corner[0] - left
            united[y : y + s.mask.shape[0], x : x + s.mask.shape[1]] |= s.mask
        one.mask, one.corner = united, (left, top)
    elif one.polygons or other.polygons:
        one.polygons, one.box = _outlines(one) + _outlines(other), None
    else:
        a, b = one.box, other.box
        one.box = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return True


def _outlines(shape: Shape) -> list[list[float]]:
    if shape.polygons or shape.box is None:
        return shape.polygons
    x1, y1, x2, y2 = shape.box
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]
