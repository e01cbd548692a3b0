"""Pascal VOC: an XML per image, with boxes by corners, lists of splits, and masks as PNGs of object numbers."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from PIL import Image

from ...errors import DataError
from ...files import open_regular_file
from .protocol import Found, Picture, Reading, Shape
from .reading import class_name, number, read_text, read_xml
from .tree import SPLITS, Tree, split_of

LOOKED_AT = 5  # XML files of a folder
VOID = 255  # of a mask: the border between objects
FITS = 0.5  # IoU of a mask's extent and its object's box
_ROOT = re.compile(rb"<annotation[\s>]")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFormat:
    """XML files whose root is `annotation`."""

    name = "Pascal VOC"
    looks_for = "an .xml with <annotation> per image"

    def recognise(self, tree: Tree) -> Found | None:
        """By the first XML files of each folder."""
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in tree.of("xml"):
            by_folder[path.parent].append(path)
        if tree.chosen.is_file():
            by_folder = {tree.chosen.parent: [tree.chosen]} if tree.chosen.suffix.lower() == ".xml" else {}
        folders = [folder for folder, paths in by_folder.items() if any(map(_is_voc, paths[:LOOKED_AT]))]
        if not folders:
            return None
        shown = os.path.relpath(folders[0], tree.root)
        where = "the folder itself" if shown == "." else shown
        return Found(self, f"XML files with <annotation> in {where}", tuple(sorted(folders)))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read all XML files at once, as whether a set counts pixels from 0 or 1 shows in no single file."""
        folders = {folder for folder in found.files if folder.is_relative_to(tree.chosen)} or set(found.files)
        files = [path for path in tree.of("xml") if path.parent in folders]
        if tree.chosen.is_file():
            files = [tree.chosen]
        parsed = [(path, root) for path in files if (root := read_xml(path)).tag == "annotation"]
        lowest = min((value for path, root in parsed for value in _firsts(path, root)), default=0.0)
        reading = Reading(splits={})
        base = 1 if lowest >= 1 else 0
        reading.notes.append(
            "no box begins at 0: pixels are counted from 1, as in VOC itself, and xmin and ymin are less 1"
            if base
            else "a box begins at 0: pixels are counted from 0"
        )
        difficult = sum(_flag(item, "difficult") for _, root in parsed for item in root.iter("object"))
        if difficult:
            reading.notes.append(f"{difficult} objects marked 'difficult' are taken as any other")
        for split, some in _by_split(parsed, tree, reading).items():
            reading.splits[split] = _pictures(some, tree, base, reading)
        return reading


def _is_voc(path: Path) -> bool:
    try:
        with open_regular_file(path) as file:
            return bool(_ROOT.search(file.read(4096).replace(b"\0", b"")))
    except OSError:
        return False


def _flag(item: Element, name: str) -> bool:
    return (item.findtext(name) or "").strip() in ("1", "true", "True")


def _by_split(
    parsed: list[tuple[Path, Element]], tree: Tree, reading: Reading
) -> dict[str, list[tuple[Path, Element]]]:
    lists = _lists(tree)
    splits: dict[str, list[tuple[Path, Element]]] = defaultdict(list)
    if not lists:
        for path, root in parsed:
            splits[split_of(path.parent / "x", tree.root) or "train"].append((path, root))
        return splits
    # Names are of one VOC folder; several may lie side by side in a VOCdevkit.
    by_place = {(path.parent.parent, path.stem): (path, root) for path, root in parsed}
    by_stem = {path.stem: (path, root) for path, root in parsed}
    listed: dict[Path, None] = {}
    for split, path in lists:
        folder = next(above.parent for above in path.parents if above.name == "ImageSets")
        for at, line in enumerate(read_text(path).splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            # A name may have blanks; what follows it in the lists of a class is 1, 0 or -1.
            name = " ".join(words[:-1] if len(words) > 1 and words[-1] in ("1", "0", "-1") else words)
            leaf = re.split(r"[/\\]", name)[-1]
            stems = (leaf, os.path.splitext(leaf)[0])
            found = next((by_place[folder, stem] for stem in stems if (folder, stem) in by_place), None)
            found = found or next((by_stem[stem] for stem in stems if stem in by_stem), None)
            if found is None and split == "test":  # whose annotations VOC kept to itself
                reading.skipped["images of ImageSets' test list without an XML file"] += 1
                continue
            if found is None:
                raise DataError(
                    f"{path}, line {at}: there is no {leaf}.xml for {name!r}. Add it, or take the line out."
                )
            splits[split].append(found)
            listed[found[0]] = None
    if len(parsed) > len(listed):
        reading.skipped["XML files that no list of ImageSets names"] += len(parsed) - len(listed)
    return {split: list({path: (path, root) for path, root in some}.values()) for split, some in splits.items()}


def _lists(tree: Tree) -> list[tuple[str, Path]]:
    """ImageSets' list of each split, of each VOC folder; trainval only where train is not there."""
    by_folder: dict[Path, dict[str, Path]] = defaultdict(dict)
    for kind in ("Main", "Segmentation", "Layout", "ImageSets"):
        for path in sorted(tree.of("txt"), key=lambda path: path.stem == "trainval"):
            if path.parent.name == kind and "ImageSets" in path.parts and path.stem.lower() in SPLITS:
                folder = path.parent if kind == "ImageSets" else path.parent.parent
                lists = by_folder[folder]
                if path.stat().st_size and all(other.parent == path.parent for other in lists.values()):
                    lists.setdefault(SPLITS[path.stem.lower()], path)
    return [(split, path) for lists in by_folder.values() for split, path in lists.items()]


def _firsts(path: Path, root: Element) -> Iterator[float]:
    for at, item in enumerate(root.iter("object"), 1):
        box = item.find("bndbox")
        for key in ("xmin", "ymin") if box is not None else ():
            yield number(box.findtext(key), f"{path}, object {at}", key)


def _pictures(parsed: list[tuple[Path, Element]], tree: Tree, base: int, reading: Reading) -> Iterator[Picture]:
    masks = {path.stem: path for path in tree.of("png") if path.parent.name == "SegmentationObject"}
    for path, root in parsed:
        image = _image(path, root, tree)
        shapes = []
        for at, item in enumerate(root.iter("object"), 1):
            if _flag(item, "deleted"):
                continue
            shape = _shape(item, f"{path}, object {at}", base)
            if shape is None:
                reading.skipped["objects without a box"] += 1
            else:
                shapes.append(shape)
        if path.stem in masks and shapes:
            _add_masks(masks[path.stem], shapes, image, tree, reading)
        yield Picture(image, shapes, str(path), _declared(path, root))


def _image(path: Path, root: Element, tree: Tree) -> Path:
    """The XML's image: the one of its own name, else the one that it names."""
    folder = path.parent
    places = [folder, folder.parent / "JPEGImages", folder.parent / "images", folder.parent]
    if folder.parent.name.lower() in ("annotations", "labels", "xmls"):  # annotations/train beside images/train
        above = folder.parent.parent
        places[1:1] = [above / "images" / folder.name, above / "JPEGImages" / folder.name, above / folder.name]
    where = str(path)
    named = (root.findtext("filename") or "").strip()
    candidates = [path.stem + os.path.splitext(named)[1], path.stem, named] if named else [path.stem]
    for name in candidates:
        found = tree.images.find(name, places, where) if name else None
        if found is not None and "SegmentationObject" not in found.parts and "SegmentationClass" not in found.parts:
            return found
    raise DataError(
        f"{path}: there is no image {path.stem}.* and none of its filename {named!r} in {tree.root}. Add the image, or "
        "remove the XML file."
    )


def _declared(path: Path, root: Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    sides = [size.findtext(key) for key in ("width", "height")]
    if not all(side and side.strip() for side in sides):
        return None
    width, height = (int(number(side, str(path), "a side of its size")) for side in sides)
    return (width, height) if width > 0 and height > 0 else None


def _shape(item: Element, where: str, base: int) -> Shape | None:
    name = class_name(item.findtext("name"), where, "its name")
    polygon, box, turned = item.find("polygon"), item.find("bndbox"), item.find("robndbox")
    shape = Shape(name)
    if box is not None:
        x1, y1, x2, y2 = (number(box.findtext(key), where, key) for key in CORNERS)
        shape.box = (x1 - base, y1 - base, x2, y2)
    if polygon is not None and polygon.find("x1") is not None:  # Roboflow's
        points = []
        while polygon.find(f"x{len(points) // 2 + 1}") is not None:
            at = len(points) // 2 + 1
            points += [number(polygon.findtext(f"{axis}{at}"), where, f"{axis}{at}") for axis in "xy"]
        shape.polygons = [points] if len(points) >= 6 else []
    elif polygon is not None:  # of MIT's LabelMe
        points = [number(pt.findtext(axis), where, f"{axis} of a pt") for pt in polygon.iter("pt") for axis in "xy"]
        shape.polygons = [points] if len(points) >= 6 else []
    if turned is not None:
        cx, cy, w, h, angle = (number(turned.findtext(key), where, key) for key in ("cx", "cy", "w", "h", "angle"))
        c, s = math.cos(angle), math.sin(angle)
        corners = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
        shape.polygons = [[v for dx, dy in corners for v in (cx + dx * c - dy * s, cy + dx * s + dy * c)]]
    return shape if shape.box is not None or shape.polygons else None


def _add_masks(path: Path, shapes: list[Shape], image: Path, tree: Tree, reading: Reading) -> None:
    """Give objects their masks: number k of the picture is the k-th object, or the one whose box fits it."""
    try:
        with open_regular_file(path) as file, Image.open(file, formats=("PNG",)) as picture:
            if picture.mode not in ("P", "L", "RGB", "RGBA"):
                raise DataError(
                    f"{path} is a PNG of mode {picture.mode}; masks have a palette, VOC's colours, or one channel. "
                    "Save it so."
                )
            numbers = np.asarray(picture)
        if numbers.ndim == 3:
            numbers = _of_colours(numbers)
    except DataError:
        raise
    except Exception as error:  # of Pillow, of many kinds
        raise DataError(f"The mask {path} cannot be read: {error}. Replace it, or remove it.") from error
    sizes, side = tree.sizes[image], numbers.shape[::-1]
    if side not in (sizes.shown, sizes[:2]):
        raise DataError(
            f"The mask {path} has {side[0]} x {side[1]} px, but its image {image} has not. Make them agree."
        )
    for value in np.unique(numbers):
        if value in (0, VOID):
            continue
        mask = numbers == value
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        extent = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        in_turn = [int(value) - 1, *range(len(shapes))]
        fit = [
            at for at in in_turn
            if at < len(shapes) and shapes[at].mask is None and _iou(shapes[at].box or extent, extent) > FITS
        ]  # fmt: skip
        if not fit:
            reading.skipped["masks that fit no object's box"] += 1
            continue
        shape = shapes[fit[0]]
        shape.mask, shape.polygons = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], []
        shape.corner = (int(columns[0]), int(rows[0]))


def _of_colours(colours: np.ndarray) -> np.ndarray:
    """The numbers that VOC's colours stand for: their bits, the lowest first, in the highest of red, green, blue."""
    numbers = np.zeros(colours.shape[:2], np.uint8)
    for bit in range(8):
        numbers |= (colours[:, :, bit % 3] >> (7 - bit // 3) & 1) << bit
    return numbers


def _iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return w * h / (sum(areas) - w * h)
