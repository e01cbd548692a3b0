"""From pictures with shapes to a COCO JSON: shapes cut to their picture, turned upright with it, and counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import DataError
from ..coco_checks import is_encodable
from ..rle import window_counts
from .protocol import Category, Picture, Reading, Shape
from .sizes import ImageSize, ImageSizes

AT_ONCE = 2000  # pictures whose headers are read together
DECIMALS = 6  # of a px


@dataclass
class BuiltSplit:
    """One split as COCO: `images` lists entries with the file's path in place of its name; `annotations` are JSON
    texts without id and category, beside the class's key and the image's position; `sources` say where the annotations
    of each image stand."""

    images: list[dict]
    paths: list[Path]
    annotations: list[tuple[int, str | int, str]]
    crowds: int = 0
    sources: list[str] = field(default_factory=list)


def build_splits(reading: Reading, sizes: ImageSizes) -> tuple[dict[str, BuiltSplit], list[Category]]:
    """Read all pictures of all splits, and settle the classes.

    Raises:
        DataError: a picture is used twice in a split, has another size than its annotations say, or cannot be read.
    """
    built = {name: _build(name, pictures, sizes, reading.skipped) for name, pictures in reading.splits.items()}
    if reading.categories is not None:
        return built, reading.categories
    names = sorted({str(label) for split in built.values() for _, label, _ in split.annotations})
    return built, [Category(name) for name in names]


def write_split(file: IO[bytes], split: BuiltSplit, categories: list[Category], names: list[str]) -> None:
    """Write a COCO JSON whose images have these file names."""
    ids = {category.name: at for at, category in enumerate(categories)}
    numbers = [at if category.id is None else category.id for at, category in enumerate(categories, 1)]
    file.write(b'{"info": {"description": "written by se-det"},\n"categories": ')
    file.write(json.dumps([_category(number, category) for number, category in zip(numbers, categories)]).encode())
    file.write(b',\n"images": [')
    for at, (entry, name) in enumerate(zip(split.images, names)):
        text = json.dumps({"id": at + 1, "file_name": name, **entry})
        file.write((",\n" if at else "\n").encode() + text.encode())
    file.write(b'],\n"annotations": [')
    for at, (image, label, text) in enumerate(split.annotations):
        number = numbers[label if isinstance(label, int) else ids[label]]
        head = f'{{"id": {at + 1}, "image_id": {image + 1}, "category_id": {number}, '
        file.write((",\n" if at else "\n").encode() + head.encode() + text.encode() + b"}")
    file.write(b"]}\n")


def _category(number: int, category: Category) -> dict:
    entry: dict = {"id": number, "name": category.name}
    if category.keypoints:
        entry |= {"keypoints": list(category.keypoints), "skeleton": []}
        if category.flip:
            entry["flip"] = [list(pair) for pair in category.flip]
    return entry


def _build(name: str, pictures: Iterable[Picture], sizes: ImageSizes, skipped: Counter[str]) -> BuiltSplit:
    split = BuiltSplit([], [], [])
    places: dict[Path, str] = {}
    waiting = iter(pictures)
    while some := list(islice(waiting, AT_ONCE)):
        sizes.load(picture.path for picture in some)
        for picture in some:
            if picture.path in places:
                raise DataError(
                    f"{picture.where}: the image {picture.path} is used twice in the split {name!r} (also in "
                    f"{places[picture.path]}): remove one of the two."
                )
            places[picture.path] = picture.where
            size = sizes[picture.path]
            turned = _turned(picture, size)
            width, height = size.shown
            at = len(split.images)
            split.images.append({"width": width, "height": height})
            split.paths.append(picture.path)
            split.sources.append(picture.where)
            for shape in picture.shapes:
                for entry in _entries(shape, size, turned, skipped):
                    split.crowds += shape.crowd
                    split.annotations.append((at, shape.label, json.dumps(entry)[1:-1]))
    return split


def _turned(picture: Picture, size: ImageSize) -> bool:
    """Whether the shapes were drawn on the image as it is stored, before its EXIF rotation.

    Raises:
        DataError: they were drawn on an image of neither size.
    """
    declared, (width, height) = picture.declared, size.shown
    if declared is None or declared == (width, height):
        return False
    if declared == (size.stored_width, size.stored_height):
        return True
    boxes = [shape.box for shape in picture.shapes if shape.box is not None]
    fits = all(box[2] <= width + 1 and box[3] <= height + 1 for box in boxes)
    if declared == (height, width) and fits and all(not s.polygons and s.mask is None for s in picture.shapes):
        return False  # written as rows and columns by mistake; the boxes say so
    raise DataError(
        f"{picture.where}: the image is declared to be {declared[0]} x {declared[1]} px, but {picture.path} is "
        f"{width} x {height}: its boxes may belong to another version of the image. Give that one, or correct the size."
    )


def _entries(shape: Shape, size: ImageSize, turned: bool, skipped: Counter[str]) -> Iterator[dict]:
    """The COCO entry of a shape, but for its ids; none when nothing of it lies in the picture."""
    box, polygons, mask, corner = shape.box, shape.polygons, shape.mask, shape.corner
    keypoints = shape.keypoints
    if turned:
        polygons = [_upright(polygon, size) for polygon in polygons]
        if keypoints is not None:
            keypoints = _upright_keypoints(keypoints, size)
        if box is not None:
            corners = _upright([box[0], box[1], box[2], box[3]], size)
            box = (min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
        if mask is not None:
            mask, corner = _upright_mask(mask, corner, size)
    width, height = size.shown
    short = sum(len(polygon) < 6 for polygon in polygons)
    if short:
        skipped["polygons of fewer than 3 points"] += short
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    segmentation: dict | list | None = None
    area = shape.area
    if mask is not None:
        mask, corner = _cut(mask, corner, width, height)
        if not mask.any():
            skipped["masks without a pixel in the image"] += 1
            return
        left, top = corner
        counts = window_counts(mask.T, top, left, height, width)
        segmentation = {"size": [height, width], "counts": counts.tolist()}
        area = float(mask.sum())
        if box is None:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    elif polygons:
        polygons = [_clipped(polygon, width, height) for polygon in polygons]
        if box is None:
            xs = [v for polygon in polygons for v in polygon[::2]]
            ys = [v for polygon in polygons for v in polygon[1::2]]
            box = (min(xs), min(ys), max(xs), max(ys))
        segmentation = polygons
        if area is None:
            area = sum(map(_area, polygons))
    if box is None:
        return
    x1, y1 = max(0.0, float(box[0])), max(0.0, float(box[1]))
    x2, y2 = min(float(width), float(box[2])), min(float(height), float(box[3]))
    if not (box[2] > box[0] and box[3] > box[1]):
        skipped["boxes without area"] += 1
        return
    if not (x2 - x1 > 1e-3 and y2 - y1 > 1e-3):
        skipped["boxes outside of the image"] += 1
        return
    entry = {
        "bbox": [round(v, DECIMALS) for v in (x1, y1, x2 - x1, y2 - y1)],
        "area": round(area or (x2 - x1) * (y2 - y1), DECIMALS),
        "iscrowd": int(shape.crowd),
    }
    if segmentation is not None:
        entry["segmentation"] = segmentation
    if keypoints is not None:
        entry["keypoints"] = [round(v, DECIMALS) for v in keypoints]
        entry["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
    yield entry


def _upright_keypoints(keypoints: list[float], size: ImageSize) -> list[float]:
    moved: list[float] = []
    for at in range(0, len(keypoints), 3):
        x, y, seen = keypoints[at : at + 3]
        moved += [*_upright([x, y], size), seen] if seen else [0.0, 0.0, 0.0]
    return moved


def _upright(xy: list[float], size: ImageSize) -> list[float]:
    """Points x, y, ... of the stored image where the shown image has them."""
    w, h = size.stored_width, size.stored_height
    moves = {
        2: lambda x, y: (w - x, y), 3: lambda x, y: (w - x, h - y), 4: lambda x, y: (x, h - y),
        5: lambda x, y: (y, x), 6: lambda x, y: (h - y, x), 7: lambda x, y: (h - y, w - x), 8: lambda x, y: (y, w - x),
    }  # fmt: skip
    move = moves.get(size.orientation)
    return xy if move is None else [v for at in range(0, len(xy) - 1, 2) for v in move(xy[at], xy[at + 1])]


def _upright_mask(mask: np.ndarray, corner: tuple[int, int], size: ImageSize) -> tuple[np.ndarray, tuple[int, int]]:
    rows, columns = mask.shape
    left, top = corner
    box = _upright([left, top, left + columns, top + rows], size)
    turn = {
        2: lambda m: m[:, ::-1], 3: lambda m: m[::-1, ::-1], 4: lambda m: m[::-1],
        5: lambda m: m.T, 6: lambda m: m.T[:, ::-1], 7: lambda m: m.T[::-1, ::-1], 8: lambda m: m.T[::-1],
    }[size.orientation]  # fmt: skip
    return turn(mask), (int(min(box[::2])), int(min(box[1::2])))


def _cut(mask: np.ndarray, corner: tuple[int, int], width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    left, top = corner
    mask = mask[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    return mask, (max(0, left), max(0, top))


def _clipped(polygon: list[float], width: int, height: int) -> list[float]:
    """A polygon whose vertices are inside or at most one side's length beyond the picture: drawing cuts the rest."""
    reach = max(width, height)
    limits = ((-reach, 2 * reach), (-reach, 2 * reach))
    return [round(min(max(v, limits[at % 2][0]), limits[at % 2][1]), DECIMALS) for at, v in enumerate(polygon)]


def _area(polygon: list[float]) -> float:
    x, y = np.array(polygon[::2]), np.array(polygon[1::2])
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def place_images(paths: list[Path], root: Path) -> tuple[Path, list[str]]:
    """The folder that holds all these files, `root` or the nearest above them all, and their names from there.

    Raises:
        DataError: a name that is no UTF-8 text, which no JSON can hold; or they are on several drives.
    """
    for path in paths:
        if not is_encodable(str(path)):
            raise DataError(f"The image {str(path)!a} has a name that is no UTF-8 text: rename it.")
    inside = all(folder.is_relative_to(root) for folder in {path.parent for path in paths})
    try:
        folder = root if inside else Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on Windows
        raise DataError("The images are on several drives, which one folder cannot hold: copy them to one.") from None
    return folder, [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
