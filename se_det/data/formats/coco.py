"""COCO JSON in the layouts that tools and people give it: Roboflow's, CVAT's, Label Studio's, LVIS's and its own."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import DataError
from ...files import open_regular_file
from ..coco_json import PackedPolygons, json_type, load_json, shorten
from ..rle import bitmap, decompress_counts
from .protocol import Category, Found, Picture, Reading, Shape
from .reading import class_name, number, read_json, whole
from .tree import Tree, split_of

LOOKED_AT = 5  # JSON files of a folder whose names say nothing: a folder of LabelMe has one per image
MOST_FILES = 50  # and of one whose names do
CHUNK = 2**24
_TELLING = re.compile(r"annotation|instance|coco|train|val|test|label|result|keypoint|lvis|data", re.IGNORECASE)
_KEYS = (re.compile(rb'"images"\s*:\s*\['), re.compile(rb'"annotations"\s*:\s*\['), re.compile(rb'"categories"\s*:'))
_OTHER_TASK = re.compile(r"^(captions|panoptic|stuff|person_keypoints|image_info|labels)_", re.IGNORECASE)


class CocoFormat:
    """A JSON object with `images`, `annotations` and `categories`, one or one per split."""

    name = "COCO"
    looks_for = "a .json with images, annotations and categories"

    def recognise(self, tree: Tree) -> Found | None:
        """The COCO files of the tree, or the one that was given."""
        files = [tree.chosen] if tree.chosen.is_file() else _candidates(tree)
        files = [path for path in files if path.suffix.lower() == ".json" and _is_coco(path)]
        if len(files) > 1:  # the other files of the official set, of the same images
            files = [path for path in files if not _OTHER_TASK.match(path.name)] or files
        if not files:
            return None
        shown = ", ".join(os.path.relpath(path, tree.root) for path in files[:3])
        return Found(self, f"{shown}{', ...' if len(files) > 3 else ''}", tuple(files))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read the files; those that `read_coco` takes as they are stay as they are."""
        by_split: dict[str, list[Path]] = defaultdict(list)
        for path in found.files:
            by_split[split_of(path, tree.root) or "train"].append(path)
        for split, paths in by_split.items():
            if len(paths) > 1:
                listed = " and ".join(str(path) for path in paths[:4])
                raise DataError(
                    f"{len(paths)} COCO files may be the split {split!r}: {listed}. Give the one that is meant in "
                    "place of the folder, or put 'train', 'val' or 'test' into their names."
                )
        reading = Reading(splits={})
        files = {split: _File(paths[0], split, tree, reading) for split, paths in by_split.items()}
        reading.categories, positions = _merged(files)
        for split, file in files.items():
            reading.splits[split] = file.pictures(positions[split])
        alike = len({tuple(file.declared) for file in files.values()}) == 1
        if reading.categories and alike and all(file.sound for file in files.values()):
            reading.sound = {
                split: (file.path, file.folder, len(file.images), len(file.annotations))
                for split, file in files.items()
            }
        return reading


def _candidates(tree: Tree) -> list[Path]:
    looked: dict[Path, int] = defaultdict(int)
    found = []
    for path in tree.of("json"):
        looked[path.parent] += 1
        if looked[path.parent] <= (MOST_FILES if _TELLING.search(path.stem) else LOOKED_AT):
            found.append(path)
    return found


def _is_coco(path: Path) -> bool:
    """Whether the three keys stand in a file, which may be large: it is gone through in pieces."""
    lacking, rest = list(_KEYS), b""
    try:
        with open_regular_file(path) as file:
            while piece := file.read(CHUNK):
                lacking = [key for key in lacking if not key.search(rest + piece)]
                if not lacking:
                    return True
                rest = piece[-64:]
    except OSError:
        pass
    return False


def image_bases(path: Path, split: str, tree: Tree) -> list[Path]:
    """Where the images of a COCO file may start from: beside it, folders that carry its split's name, `images`."""
    beside, above = path.parent, path.parent.parent
    stem = re.sub(r"^(instances|person_keypoints|lvis_v\d+|annotations?)_", "", path.stem)
    found = [beside]
    for folder in (beside, above) if beside != tree.root else (beside,):
        found += [folder / stem, folder / "images" / stem, folder / split, folder / "images" / split]
        found += [folder / "images", folder]
    return [base for base in dict.fromkeys(found) if base.is_dir()]


def _merged(files: dict[str, _File]) -> tuple[list[Category], dict[str, dict[int, int]]]:
    """The classes of all files, and of each file the position of each id among them. Equal names are one class, but
    for a file that gives one name to several."""
    names_twice = any(len({name for _, name in f.declared}) != len(f.declared) for f in files.values())
    keys: dict[Any, int] = {}
    categories: list[Category] = []
    positions: dict[str, dict[int, int]] = {}
    for split, file in files.items():
        positions[split] = {}
        for category_id, name in file.declared:
            key = (category_id, name) if names_twice else name
            if key not in keys:
                keys[key] = len(categories)
                points, flip = file.keypoints.get(category_id, ((), ()))
                categories.append(Category(name, points, flip, category_id))
            positions[split][category_id] = keys[key]
    if len({category.id for category in categories}) != len(categories):  # one number, two classes
        categories = [Category(c.name, c.keypoints, c.flip, at) for at, c in enumerate(categories, 1)]
    return categories, positions


class _File:
    """One COCO JSON: its parts, and whether it can be read as it is."""

    def __init__(self, path: Path, split: str, tree: Tree, reading: Reading) -> None:
        self.path, self.split, self._tree, self._reading = path, split, tree, reading
        content = load_json(path, PackedPolygons())  # whose vertices are of no interest yet
        for key in ("images", "annotations", "categories"):
            values = content.get(key) if isinstance(content, dict) else None
            if not isinstance(values, list):
                given = "is missing" if values is None else f"is a JSON {json_type(values)}"
                raise DataError(f"{path}: {key!r} {given}; it must be a list of objects, as COCO has it.")
            wrong = next((at for at, value in enumerate(values) if not isinstance(value, dict)), None)
            if wrong is not None:
                raise DataError(f"{path}: entry {wrong} of {key!r} is {shorten(values[wrong])}; it must be an object.")
        self.images, self.annotations = content["images"], content["annotations"]
        self.sound = True
        self.keypoints: dict[int, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {}
        if any("segments_info" in annotation for annotation in self.annotations[:1]):
            raise DataError(
                f"{path} is COCO panoptic, which is not read: give the 'instances' JSON of the same images."
            )
        self.declared = self._categories(content["categories"])
        self.folder = self._images_folder()

    def _id(self, value: Any, where: str, what: str) -> int | str:
        """An id; pandas writes whole numbers as 3.0."""
        if type(value) is float:
            self.sound = False
            return whole(value, where, what)
        if type(value) is int or isinstance(value, str):
            return value
        given = "is missing" if value is None else f"is {shorten(value)}"
        raise DataError(f"{where}: {what} {given}; it must be a whole number or a text.")

    def _categories(self, found: list[dict]) -> list[tuple[int, str]]:
        used = {float(c) for a in self.annotations if type(c := a.get("category_id")) in (int, float)}
        supers = {c["supercategory"] for c in found if isinstance(c.get("supercategory"), str)}
        declared: dict[int, str] = {}
        for at, category in enumerate(found):
            where = f"{self.path}: entry {at} of 'categories'"
            number_ = whole(self._id(category.get("id"), where, "its id"), where, "its id")
            name = class_name(category.get("name"), where, "its name")
            if number_ in declared:
                raise DataError(f"{where}: the id {number_} is used twice. Give each category an id of its own.")
            if number_ == 0 and number_ not in used and len(found) > 1 and category.get("name") in supers:
                note = f"the category {name!r} (id 0), the root that Roboflow adds, has no annotations and is left out"
                self._reading.notes.append(note)
                self.sound = False
                continue
            declared[number_] = name
            points = category.get("keypoints")
            if isinstance(points, list) and points and all(isinstance(p, str) for p in points):
                pairs = category.get("flip")
                sound = isinstance(pairs, list) and all(
                    isinstance(pair, list) and len(pair) == 2 and set(pair) <= set(points) for pair in pairs
                )
                self.keypoints[number_] = (tuple(points), tuple(map(tuple, pairs)) if sound else ())
        return sorted(declared.items())

    def _images_folder(self) -> Path:
        """The folder that the file names start from; without one that fits them all the file is not sound."""
        names = [image.get("file_name") for image in self.images]
        plain = all(
            isinstance(name, str) and name and name[0] not in "/\\" and ".." not in name and "\\" not in name
            for name in names
        )
        known = self._tree.images
        if plain and names:
            for base in self._bases():
                if all(base / PurePosixPath(name) in known for name in names):
                    ids = [image.get("id") for image in self.images]
                    self.sound &= all(type(v) in (int, str) for v in ids) and not self._cvat_masks()
                    sides = (image.get(key) for image in self.images for key in ("width", "height"))
                    self.sound &= all(type(side) is int for side in sides) and all(map(_is_plain, self.annotations))
                    return base
        self.sound = False
        return self._tree.root

    def _bases(self) -> list[Path]:
        return image_bases(self.path, self.split, self._tree)

    def _cvat_masks(self) -> bool:
        """Whether masks are written as CVAT does: brushed objects as RLE with iscrowd 1, beside `attributes`."""
        return any(_is_brushed(annotation) for annotation in self.annotations)

    def pictures(self, positions: dict[int, int]) -> Iterator[Picture]:
        """The images with their shapes."""
        by_image: dict[int | str, list[tuple[int, dict]]] = defaultdict(list)
        self.annotations = read_json(self.path)["annotations"]  # with their polygons
        for at, annotation in enumerate(self.annotations):
            where = f"{self.path}: annotation {shorten(annotation.get('id', f'number {at}'))}"
            by_image[self._id(annotation.get("image_id"), where, "its image_id")].append((at, annotation))
        bases = self._bases()
        seen: set[int | str] = set()
        for at, image in enumerate(self.images):
            where = f"{self.path}: image {shorten(image.get('id', f'number {at}'))}"
            number_ = self._id(image.get("id"), where, "its id")
            if number_ in seen:
                raise DataError(f"{where}: the id is used twice. Give each image an id of its own.")
            seen.add(number_)
            path = self._file(image, bases, where)
            declared = tuple(image.get(key) for key in ("width", "height"))
            sized = all(value not in (None, 0) for value in declared)
            size = tuple(whole(value, where, "its size") for value in declared) if sized else None
            shapes = [
                self._shape(annotation, positions, size, f"{self.path}: annotation {annotation.get('id', number_)!r}")
                for _, annotation in by_image.pop(number_, ())
            ]
            yield Picture(path, [s for s in shapes if s is not None], where, size)
        if by_image:
            image_id, (first, *_) = next(iter(by_image.items()))
            raise DataError(
                f"{self.path}: annotation {shorten(first[1].get('id', first[0]))} has image_id {shorten(image_id)}, "
                "which 'images' does not have. Add the image or remove the annotation."
            )

    def _file(self, image: dict, bases: list[Path], where: str) -> Path:
        name = image.get("file_name") or image.get("coco_url")  # LVIS has the latter alone
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: its file_name is {shorten(name)}. Give the path of its file.")
        if name.startswith(("http://", "https://")):
            name = "/".join(name.split("?")[0].split("/")[3:])
        elif "?d=" in name:  # Label Studio's local files
            name = name.split("?d=", 1)[1]
        path = self._tree.images.find(name, bases, where)
        if path is None:
            # Label Studio puts a number of its own before names.
            leaf = re.split(r"[/\\]", name)[-1]
            shorter = re.sub(r"^[0-9a-f]{8}-", "", leaf)
            path = self._tree.images.find(shorter, bases, where) if shorter != leaf else None
        if path is None:
            raise DataError(
                f"{where}: there is no image {shorten(name)} in {self._tree.root} (in {bases[0]}, nor elsewhere by "
                "its name). Put the images beside the annotations, or take it out of them."
            )
        return path

    def _shape(
        self, annotation: dict, positions: dict[int, int], size: tuple[int, int] | None, where: str
    ) -> Shape | None:
        number_ = self._id(annotation.get("category_id"), where, "its category_id")
        if number_ not in positions:
            raise DataError(f"{where}: its category_id {shorten(number_)} is none of 'categories'. Declare it.")
        shape = Shape(positions[number_])
        crowd = annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DataError(f"{where}: its iscrowd is {shorten(crowd)}; it must be 0 or 1.")
        shape.crowd = bool(crowd)
        if _is_brushed(annotation):
            shape.crowd = False
            self._reading.notes.append("masks of CVAT's brush (RLE with iscrowd 1) are taken as objects, not as crowds")
        box = annotation.get("bbox")
        segmentation = annotation.get("segmentation")
        if box:
            if not isinstance(box, list) or len(box) != 4:
                raise DataError(f"{where}: its bbox is {shorten(box)}; it must be [x, y, width, height] in px.")
            x, y, w, h = (number(value, where, "a number of its bbox") for value in box)
            shape.box = (x, y, x + w, y + h)
        if isinstance(segmentation, dict):
            shape.mask = _mask(segmentation, size, where)
        elif segmentation is not None:
            if not isinstance(segmentation, list):
                raise DataError(f"{where}: its segmentation is {shorten(segmentation)}, neither polygons nor an RLE.")
            flat = segmentation and all(type(v) in (int, float) for v in segmentation)
            for polygon in [segmentation] if flat else segmentation:
                if not isinstance(polygon, list) or len(polygon) % 2:
                    raise DataError(
                        f"{where}: a polygon of its segmentation is {shorten(polygon)}; it must be x, y, ..."
                    )
                shape.polygons.append([number(value, where, "a number of its segmentation") for value in polygon])
        if shape.box is None and not shape.polygons and shape.mask is None:
            self._reading.skipped["annotations without bbox and segmentation"] += 1
            return None
        if annotation.get("area") is not None:
            area = number(annotation["area"], where, "its area")
            shape.area = area if area > 0 else None
        points = annotation.get("keypoints")
        if points:
            if not isinstance(points, list) or len(points) % 3:
                raise DataError(f"{where}: its keypoints are {shorten(points)}; they must be x, y, v, ...")
            shape.keypoints = [number(value, where, "a number of its keypoints") for value in points]
        return shape


def _is_plain(annotation: dict) -> bool:
    """Whether an annotation has ids that are no fractions and a box with an area."""
    box = annotation.get("bbox")
    sound = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
    ids = type(annotation.get("category_id")) is int and type(annotation.get("image_id")) in (int, str)
    return sound and ids and box[2] > 0 and box[3] > 0


def _is_brushed(annotation: dict) -> bool:
    attributes = annotation.get("attributes")
    return (
        annotation.get("iscrowd") == 1
        and isinstance(annotation.get("segmentation"), dict)
        and isinstance(attributes, dict)
        and "occluded" in attributes
    )


def _mask(rle: dict, size: tuple[int, int] | None, where: str) -> np.ndarray:
    counts, sides = rle.get("counts"), rle.get("size")
    fault = f"{where}: its RLE is damaged"
    if not isinstance(sides, list) or len(sides) != 2:
        raise DataError(f"{fault}: its size is {shorten(sides)}; it must be [height, width].")
    height, width = (whole(side, where, "a side of its RLE") for side in sides)
    if size is None or (width, height) != size:
        raise DataError(f"{fault}: its size is {shorten(sides)}, but its image is {size} (width, height).")
    if isinstance(counts, str) and counts.isascii() and counts:
        values, _, valid = decompress_counts([counts.encode()])
        sound = bool(valid.all())
    elif isinstance(counts, list) and counts and set(map(type, counts)) == {int} and max(map(abs, counts)) < 2**40:
        values, sound = np.array(counts, np.int64), True
    else:
        raise DataError(f"{fault}: its counts are {shorten(counts)}; they must be run lengths or text.")
    if not sound or (values < 0).any() or (values > 2**40).any() or values.sum() != height * width:
        raise DataError(f"{fault}: its counts do not sum up to {height} x {width}. Encode the mask again.")
    return bitmap(values, height, width).astype(bool)
