"""What a reader of an annotation format is, and what it hands over: pictures with shapes, one split after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from .tree import Tree


@dataclass(slots=True)
class Shape:
    """An object in a picture. A box, polygons or a mask: at least one of them.

    Attributes:
        label: the class's name, or its position in `Reading.categories`.
        box: XYXY px; None is the extent of the polygons and the mask.
        polygons: each x, y, x, y, ... px.
        mask: bool (rows, columns), a window of the picture whose top left pixel is at `corner` (x, y).
        keypoints: x, y, v, x, y, v, ... px; v is 0 (not labelled), 1 (hidden) or 2 (seen).
        crowd: a group that nobody took apart.
        area: px^2, where the format gives one.
    """

    label: str | int
    box: tuple[float, float, float, float] | None = None
    polygons: list[list[float]] = field(default_factory=list)
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    keypoints: list[float] | None = None
    crowd: bool = False
    area: float | None = None


@dataclass(slots=True)
class Picture:
    """An image file and what is drawn in it.

    Attributes:
        path: the image file.
        shapes: its objects; none makes it a background.
        where: what a sentence calls the place of its annotations, a file, with a line or an element.
        declared: (width, height) px that the annotations say it has; None where they do not.
    """

    path: Path
    shapes: list[Shape]
    where: str
    declared: tuple[int, int] | None = None


@dataclass(frozen=True)
class Category:
    """A class: its name, and of keypoints their names and the pairs that change places in a mirror."""

    name: str
    keypoints: tuple[str, ...] = ()
    flip: tuple[tuple[str, str], ...] = ()
    id: int | None = None  # the format's own


@dataclass
class Reading:
    """What a format read.

    Attributes:
        splits: the pictures of "train", "val", "test" or another name, read while they are gone through.
        categories: the classes in the format's order; None where names stand beside the shapes: they are sorted then.
        skipped: how many shapes or pictures were left out, by reason; it grows while pictures are read.
        notes: other things worth a line.
        sound: splits that are COCO as `read_coco` takes it: the JSON, the folder of images, and how many images and
            annotations it has. It is filled, for all splits, or empty.
    """

    splits: dict[str, Iterable[Picture]]
    categories: list[Category] | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    sound: dict[str, tuple[Path, Path, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A format that was recognised.

    Attributes:
        format: who can read it.
        evidence: what it was recognised by, for a sentence.
        files: its annotation files or folders; one of them given as SRC chooses this format among several.
    """

    format: Format
    evidence: str
    files: tuple[Path, ...]


class Format(Protocol):
    """A reader of one annotation format.

    Attributes:
        name: as people call it.
        looks_for: what a folder of this format has, for the sentence that says what was looked for.
    """

    name: str
    looks_for: str

    def recognise(self, tree: Tree) -> Found | None:
        """Whether the files of `tree` are of this format. Looks at names, and into a few files."""
        ...

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read what `recognise` found.

        Raises:
            DataError: a sentence with the file, the line or element, the value, and what to do.
        """
        ...
