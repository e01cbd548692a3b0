"""COCO's panoptic format: a JSON of segments with their categories, and PNGs of the segments' numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .coco_json import PackedPolygons, load_json
from .pixel_labels import IGNORE, THINGS, read_panoptic_png, stem_of


@dataclass(frozen=True)
class Segments:
    """The segments of an image: n of them.

    Attributes:
        path: of the PNG.
        ids: int64 (n,), the numbers in the PNG.
        categories: int64 (n,), ids of categories.
        crowd: bool (n,).
        areas: int64 (n,) px, as the JSON gives them.
    """

    path: Path
    ids: np.ndarray
    categories: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def read(self) -> np.ndarray:
        """int32 (H, W), the segment's number at each pixel, 0 for none.

        Raises:
            DataError: see `read_panoptic_png`.
        """
        return read_panoptic_png(self.path)


class PanopticTruth:
    """All of a panoptic JSON, kept as a few arrays.

    Attributes:
        json_path, folder: of the JSON and of its PNGs.
        categories: {"id", "name", "isthing"} of each, ascending by id.
        image_ids: as in the file.
        file_names: of the images, or of their PNGs where the file does not list images.
    """

    def __init__(self, json_path: Path, folder: Path) -> None:
        """Read it.

        Raises:
            DataError: it is missing or not of this format.
        """
        self.json_path, self.folder = Path(json_path), Path(folder)
        content = load_json(self.json_path, PackedPolygons())
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise DataError(f"{json_path} is not in COCO's panoptic format: it must be an object with 'annotations'.")
        self.categories = _categories(self.json_path, content.get("categories"))
        images = {image["id"]: image for image in content.get("images", []) if isinstance(image, dict)}
        known = {category["id"] for category in self.categories}
        self.image_ids, self.file_names, self.sizes, self._pngs, rows, first = [], [], [], [], [], [0]
        try:
            for annotation in content["annotations"]:
                image = images.get(annotation["image_id"], {})
                self.image_ids.append(annotation["image_id"])
                self.file_names.append(image.get("file_name", annotation["file_name"]))
                self.sizes.append((image.get("height"), image.get("width")))
                self._pngs.append(annotation["file_name"])
                for info in annotation["segments_info"]:
                    if info["category_id"] not in known:
                        raise DataError(
                            f"{json_path}: a segment of image {annotation['image_id']!r} has category "
                            f"{info['category_id']!r}, which 'categories' does not declare."
                        )
                    rows.append((info["id"], info["category_id"], info.get("iscrowd", 0), info.get("area", 0)))
                first.append(len(rows))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{json_path} is not in COCO's panoptic format: each entry of 'annotations' has image_id, file_name "
                f"and segments_info, a list of objects with id and category_id ({error!r} is missing or of another "
                "kind)."
            ) from error
        self._rows, self._first = np.array(rows, np.int64).reshape(-1, 4), first
        self._of_id = {image_id: at for at, image_id in enumerate(self.image_ids)}
        self._of_stem = {stem_of(name): at for at, name in enumerate(self.file_names)}

    def position(self, image_id: Hashable, file_name: str) -> int | None:
        """Which entry is of an image, by its id, or else by its file's stem; None without one."""
        found = self._of_id.get(image_id)
        return self._of_stem.get(stem_of(file_name)) if found is None else found

    def segments(self, at: int) -> Segments:
        """Of the entry at a position."""
        rows = self._rows[self._first[at] : self._first[at + 1]]
        return Segments(self.folder / self._pngs[at], rows[:, 0], rows[:, 1], rows[:, 2] > 0, rows[:, 3])


@dataclass(frozen=True)
class PanopticFiles:
    """Where the panoptic truth of a data set lies; it is read when it is asked for.

    Attributes:
        json_path, folder: see `PanopticTruth`.
    """

    json_path: Path
    folder: Path

    def load(self) -> PanopticTruth:
        """All of it; see `PanopticTruth`."""
        return PanopticTruth(self.json_path, self.folder)


@dataclass(frozen=True)
class PanopticLabels:
    """Labels of pixels out of panoptic PNGs, as Detectron2's prepare_panoptic_fpn.py writes them: all things are class
    0, stuff the classes from 1 on in the order of the categories' ids, and everything else is ignored."""

    files: PanopticFiles
    categories: tuple[tuple[int, str, bool], ...]
    ignore: int = IGNORE

    @property
    def folder(self) -> Path:
        """Of the PNGs."""
        return self.files.folder

    @property
    def names(self) -> tuple[str, ...]:
        """`things`, and the names of the stuff."""
        return (THINGS, *(name for _, name, thing in self.categories if not thing))

    @property
    def category_ids(self) -> tuple[int, ...]:
        """0 for things, and the ids of the stuff."""
        return (0, *(number for number, _, thing in self.categories if not thing))

    @cached_property
    def _truth(self) -> PanopticTruth:
        return self.files.load()

    def path(self, file_name: str) -> Path:
        """As of `PixelLabels`."""
        at = self._truth.position(None, file_name)
        return self.folder / (stem_of(file_name) + ".png") if at is None else self._truth.segments(at).path

    def read(self, file_name: str, height: int, width: int) -> np.ndarray:
        """As of `PixelLabels`."""
        at = self._truth.position(None, file_name)
        if at is None:
            raise DataError(f"{self.files.json_path} has no entry of the image {file_name}: add it.")
        segments = self._truth.segments(at)
        numbers = segments.read()
        if numbers.shape != (height, width):
            raise DataError(
                f"The panoptic PNG {segments.path} is {numbers.shape[1]} x {numbers.shape[0]} px (width x height), and "
                f"its image {width} x {height}."
            )
        labels = np.full(numbers.shape, self.ignore, np.uint8)
        of_category = {number: label for label, number in enumerate(self.category_ids)}
        for number, category in zip(segments.ids.tolist(), segments.categories.tolist()):
            labels[numbers == number] = of_category.get(category, 0)
        return labels


def read_categories(path: Path) -> tuple[tuple[int, str, bool], ...]:
    """(id, name, whether it is a thing) of a panoptic JSON's categories, ascending by id. Of the hundreds of MB that a
    large file has nothing else is parsed.

    Raises:
        DataError: it is missing, or has none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"The panoptic annotation file {path} is not there: correct the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The panoptic annotation file {path} cannot be read: {error}.") from error
    for found in reversed(list(re.finditer(r'"categories"\s*:\s*', text))):
        try:
            content, _ = json.JSONDecoder().raw_decode(text, found.end())
            return tuple((c["id"], c["name"], bool(c["isthing"])) for c in _categories(Path(path), content))
        except ValueError:
            continue
    raise DataError(f"{path} is not in COCO's panoptic format: it has no 'categories'.")


def _categories(path: Path, found: Any) -> list[dict[str, Any]]:
    sound = isinstance(found, list) and found
    if not sound or not all(isinstance(c, dict) and {"id", "name", "isthing"} <= c.keys() for c in found):
        raise DataError(
            f"{path} is not in COCO's panoptic format: 'categories' must be objects with id, name and isthing (1 for "
            "things, 0 for stuff)."
        )
    return sorted(found, key=lambda category: category["id"])
