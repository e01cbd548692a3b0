"""CVAT for images 1.1: one XML with an `image` element per picture."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ...errors import DataError
from ...files import open_regular_file
from ..coco_json import shorten
from .protocol import Category, Found, Picture, Reading, Shape
from .reading import class_name, number, read_xml, whole
from .tree import Tree, split_in, split_of

ELLIPSE = 72  # corners of an ellipse
OBJECTS = ("box", "polygon", "mask", "ellipse")
MOST_FILES = 50  # XML files of a folder: where there are more, they are one per image
LARGEST = 2**28  # px of a mask


class CvatFormat:
    """An XML whose root is `annotations` with `image` elements."""

    name = "CVAT for images"
    looks_for = "an .xml with <annotations> and <image>"

    def recognise(self, tree: Tree) -> Found | None:
        """By the beginning of XML files."""
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in tree.of("xml"):
            by_folder[path.parent].append(path)
        files = [path for some in by_folder.values() if len(some) <= MOST_FILES for path in some]
        files = [tree.chosen] if tree.chosen.is_file() else files
        files = [path for path in files if path.suffix.lower() == ".xml" and _is_cvat(path)]
        if not files:
            return None
        return Found(self, ", ".join(os.path.relpath(path, tree.root) for path in files[:3]), tuple(files))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read the files, and group their images by `subset`, else by their folders' names."""
        reading = Reading(splits={}, categories=[])
        by_split: dict[str, list[tuple[Path, Element]]] = defaultdict(list)
        for path in found.files:
            root = read_xml(path)
            if root.find("track") is not None and root.find("image") is None:
                raise DataError(
                    f"{path} is 'CVAT for video' (it has tracks). Export it as 'CVAT for images 1.1' or 'COCO 1.0'."
                )
            for label in root.findall("meta//labels/label"):
                if label.findtext("type") not in ("skeleton", "points", "tag"):
                    _add(reading.categories, class_name(label.findtext("name"), f"{path}: a label of meta"))
            for image in root.iter("image"):
                subset, name = image.get("subset") or "", image.get("name") or ""
                split = split_in(subset) or split_of(Path("/") / os.path.dirname(name) / "x", Path("/"))
                by_split[split or split_of(path, tree.root) or "train"].append((path, image))
        for split, images in by_split.items():
            reading.splits[split] = _pictures(images, tree, reading)
        return reading


def _is_cvat(path: Path) -> bool:
    try:
        with open_regular_file(path) as file:
            data = file.read(2**22).replace(b"\0", b"")
    except OSError:
        return False
    return b"<annotations" in data[:4096] and (b"<image" in data or b"<track" in data)


def _add(categories: list[Category], name: str) -> None:
    if name not in {category.name for category in categories}:
        categories.append(Category(name))


def _pictures(images: list[tuple[Path, Element]], tree: Tree, reading: Reading) -> Iterator[Picture]:
    known = {category.name for category in reading.categories}
    for path, image in images:
        name = image.get("name")
        where = f"{path}: image {shorten(name)}"
        if not name:
            raise DataError(f"{where} (id {image.get('id')!r}) has no name. Give the path of its file.")
        bases = [path.parent / "images" / (image.get("subset") or ""), path.parent / "images", path.parent, tree.root]
        found = tree.images.find(name, bases, where)
        if found is None:
            raise DataError(f"{where}: there is no such file in {tree.root}. Put the images beside the XML.")
        shapes: list[Shape] = []
        groups: dict[tuple[str, str], Shape] = {}
        for at, item in enumerate(image):
            shape = _shape(item, f"{where}, {item.tag} {at}", reading)
            if shape is None:
                continue
            if shape.label not in known:
                known.add(str(shape.label))
                _add(reading.categories, str(shape.label))
            group = (str(shape.label), item.get("group_id") or "0")
            if group[1] != "0" and shape.polygons and group in groups and groups[group].polygons:
                groups[group].polygons += shape.polygons
                continue
            groups.setdefault(group, shape)
            shapes.append(shape)
        sides = [image.get(key) for key in ("width", "height")]
        size = tuple(whole(side, where, "its width or height") for side in sides) if all(sides) else None
        yield Picture(found, shapes, where, size if size and all(size) else None)


def _shape(item: Element, where: str, reading: Reading) -> Shape | None:
    if item.tag not in OBJECTS:
        reading.skipped[f"shapes of the type {item.tag[:40]!r}"] += 1
        return None
    if item.get("outside") == "1":
        reading.skipped["shapes outside of the image"] += 1
        return None
    shape = Shape(class_name(item.get("label"), where, "its label"))
    angle = math.radians(number(item.get("rotation", "0"), where, "its rotation"))

    def value(key: str) -> float:
        return number(item.get(key), where, f"its {key}")

    if item.tag == "box":
        x1, y1, x2, y2 = map(value, ("xtl", "ytl", "xbr", "ybr"))
        if not angle:
            shape.box = (x1, y1, x2, y2)
        else:
            shape.polygons = [_turned([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], (x1 + x2) / 2, (y1 + y2) / 2, angle)]
    elif item.tag == "ellipse":
        cx, cy, rx, ry = map(value, ("cx", "cy", "rx", "ry"))
        turns = [2 * math.pi * at / ELLIPSE for at in range(ELLIPSE)]
        shape.polygons = [_turned([(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turns], cx, cy, angle)]
    elif item.tag == "polygon":
        pairs = [pair.split(",") for pair in (item.get("points") or "").split(";") if pair.strip()]
        if any(len(pair) != 2 for pair in pairs) or len(pairs) < 3:
            raise DataError(f"{where}: its points are {shorten(item.get('points'))}; they must be 'x,y;x,y;x,y'.")
        shape.polygons = [[number(v, where, "a number of its points") for pair in pairs for v in pair]]
    else:
        left, top, width, height = (
            whole(item.get(key), where, f"its {key}") for key in ("left", "top", "width", "height")
        )
        runs = [whole(run, where, "a number of its rle") for run in (item.get("rle") or "").split(",")]
        if width < 1 or height < 1 or width * height > LARGEST or min(runs) < 0 or sum(runs) != width * height:
            raise DataError(f"{where}: its rle does not sum up to {width} x {height}. Export it again.")
        values = np.arange(len(runs)) % 2 == 1
        shape.mask, shape.corner = np.repeat(values, runs).reshape(height, width), (left, top)
    return shape


def _turned(points: list[tuple[float, float]], cx: float, cy: float, angle: float) -> list[float]:
    """Points turned about a centre, clockwise as the picture is seen."""
    c, s = math.cos(angle), math.sin(angle)
    return [v for x, y in points for v in (cx + (x - cx) * c - (y - cy) * s, cy + (x - cx) * s + (y - cy) * c)]
