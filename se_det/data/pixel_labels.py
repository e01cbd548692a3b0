"""The class of every pixel of an image, from a folder of PNGs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import open_regular_file
from .images import decode_error

IGNORE = 255  # the label of pixels of no class
THINGS = "things"  # class 0 where instances are labelled apart (Detectron2's name)


class PixelLabels(Protocol):
    """Where the labels of a data set's images come from.

    Attributes:
        names: of the classes; a label is a position here.
        category_ids: the data set's own number of each class.
        ignore: the label of pixels of no class.
        folder: of the files.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    ignore: int
    folder: Path

    def path(self, file_name: str) -> Path:
        """The file of an image, whose name is relative to its folder."""
        ...

    def read(self, file_name: str, height: int, width: int) -> np.ndarray:
        """uint8 (height, width), the label of each pixel.

        Raises:
            DataError: the file is missing, is no such PNG, is of another size, or has a label that is none.
        """
        ...


@dataclass(frozen=True)
class LabelFolder:
    """PNGs of one channel, whose values are labels, with the stems of their images.

    Attributes:
        folder: of the PNGs.
        names, category_ids, ignore: see `PixelLabels`; without ids they are the labels.
        ending: what a PNG is called after its image's stem.
        image_ending: what of the image's stem is not in the PNG's.
        table: the label of each of the 256 values of a file; empty where values are labels.
    """

    folder: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    ignore: int = IGNORE
    ending: str = ".png"
    image_ending: str = ""
    table: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(len(self.names))))

    def path(self, file_name: str) -> Path:
        """As of `PixelLabels`."""
        stem = os.path.splitext(file_name)[0]
        return self.folder / (stem.removesuffix(self.image_ending) + self.ending)

    def read(self, file_name: str, height: int, width: int) -> np.ndarray:
        """As of `PixelLabels`."""
        path = self.path(file_name)
        labels = read_label_png(path)
        if labels.shape != (height, width):
            raise DataError(
                f"The labels {path} are {labels.shape[1]} x {labels.shape[0]} px (width x height), and their image "
                f"{file_name} is {width} x {height}: write one label for each pixel."
            )
        if self.table:
            labels = np.asarray(self.table, np.uint8)[labels]
        wrong = labels[(labels >= len(self.names)) & (labels != self.ignore)]
        if len(wrong):
            raise DataError(
                f"The labels {path} have the value {wrong[0]}, and there are {len(self.names)} classes (0 to "
                f"{len(self.names) - 1}; {self.ignore} is ignored). Name all classes (DATASETS.SEM_SEG_CLASSES or "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES), or correct the file."
            )
        return labels


def read_label_png(path: Path) -> np.ndarray:
    """uint8 (H, W): the values of an image of one channel, or the indices of one with a palette.

    Raises:
        DataError: it is not there, cannot be read, or has other values.
    """
    with _opened(path) as image:
        if image.mode not in ("L", "P", "1", "I", "I;16"):
            raise DataError(
                f"The labels {path} are an image of mode {image.mode}: give PNGs of one channel, whose values are the "
                "classes 0, 1, 2, ... (a palette may colour them)."
            )
        values = np.array(image)
    if values.dtype != np.uint8:
        if values.max(initial=0) > 255:
            raise DataError(f"The labels {path} have the value {values.max()}: classes are numbers from 0 to 255.")
        values = values.astype(np.uint8)
    return values


def read_panoptic_png(path: Path) -> np.ndarray:
    """int32 (H, W): the number of the segment at each pixel, red + 256 green + 65536 blue.

    Raises:
        DataError: it is not there, or no such image.
    """
    with _opened(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise DataError(
                f"The panoptic PNG {path} is an image of mode {image.mode}: COCO's are RGB, the number of a segment "
                "being red + 256 green + 65536 blue."
            )
        values = np.array(image.convert("RGB")).astype(np.int32)
    return values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]


def panoptic_pixels(segments: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB of numbers of segments (H, W), as `read_panoptic_png` reads them."""
    return np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=-1).astype(np.uint8)


def _opened(path: Path) -> Image.Image:
    try:
        with open_regular_file(path) as file:
            image = Image.open(file, formats=("PNG", "BMP", "TIFF", "GIF"))
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"The labels {path} are not there: add the file, or leave its image out.") from error
    except Exception as error:  # of Pillow, of many kinds
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        raise DataError(f"The labels {path} cannot be read: {decode_error(error, empty=empty)}.") from error


def check_label_files(labels: PixelLabels, file_names: Sequence[str]) -> None:
    """Refuse a data set of whose images some have no labels. Each folder is listed once.

    Raises:
        DataError: naming the first that are missing.
    """
    there: dict[Path, set[str]] = {}
    missing = []
    for name in file_names:
        path = labels.path(name)
        if path.parent not in there:
            there[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in there[path.parent]:
            missing.append(path)
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(file_names)} images have no labels in {labels.folder}: "
            f"{', '.join(path.name for path in missing[:3])}{', ...' if len(missing) > 3 else ''} "
            "are not there. Add them, or take their images out."
        )


def read_class_names(entries: Sequence[str]) -> tuple[str, ...]:
    """DATASETS.SEM_SEG_CLASSES: the names themselves, or those of a JSON file: a list of names or of {"name": ...}, or
    an object of number to name.

    Raises:
        DataError: the file is missing or holds something else, or a name comes twice.
    """
    names = [str(entry) for entry in entries]
    if len(names) == 1 and names[0].lower().endswith(".json"):
        names = _names_in_json(Path(names[0]))
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"DATASETS.SEM_SEG_CLASSES has {min(twice)!r} twice: give each class a name of its own.")
    return tuple(names)


def _names_in_json(path: Path) -> list[str]:
    try:
        with open_regular_file(path) as file:
            content = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise DataError(f"The class names {path} (DATASETS.SEM_SEG_CLASSES) cannot be read: {error}.") from error
    if isinstance(content, dict):
        try:
            numbered = {int(key): value for key, value in content.items()}
        except ValueError:
            numbered = {}
        content = [numbered[at] for at in range(len(numbered)) if at in numbered] if numbered else None
        if content is not None and len(content) < len(numbered):
            content = None
    if isinstance(content, list):
        content = [entry.get("name") if isinstance(entry, dict) else entry for entry in content]
    if not isinstance(content, list) or not content or not all(isinstance(name, str) and name for name in content):
        raise DataError(
            f"{path} (DATASETS.SEM_SEG_CLASSES) must hold the names of the classes in order: a JSON list of names, of "
            'objects with a "name", or an object {"0": name, "1": name, ...}.'
        )
    return content


def stem_of(file_name: str) -> str:
    """An image's name without folder and ending."""
    return PurePosixPath(file_name).stem
