"""What can be wrong with a data set: a name, a weight and a remedy for each kind of fault, and where it was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotation_marks import CROWD_REMEDY

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

Change = dict[str, Any]  # of a cleaned copy: part, id, change, why


@dataclass(frozen=True)
class Kind:
    """A kind of fault. Errors are what training refuses or learns wrongly from; warnings may be meant; notes inform."""

    severity: str
    title: str
    remedy: str


KINDS: dict[str, Kind] = {
    "format": Kind(ERROR, "not in COCO's format", "give the lists 'images', 'annotations' and 'categories' of objects"),
    "wrong-type": Kind(ERROR, "values missing or of a wrong type", "write them as docs/check_data.md says"),
    "other-form": Kind(ERROR, "values with one meaning in another form", "write them as COCO does (--fix does)"),
    "not-finite": Kind(ERROR, "numbers that are not finite", "correct or remove them"),
    "image-id-twice": Kind(ERROR, "image ids twice", "give each image an id of its own"),
    "annotation-id-twice": Kind(ERROR, "annotation ids twice", "give each annotation an id of its own"),
    "category-id-twice": Kind(ERROR, "category ids twice", "give each category an id of its own"),
    "category-name-twice": Kind(WARNING, "category names twice", "merge the categories, or name them apart"),
    "dangling-image": Kind(ERROR, "annotations of images that are not there", "add the images, or remove them"),
    "undeclared-category": Kind(ERROR, "annotations of undeclared categories", "declare them, or remove these"),
    "unused-category": Kind(NOTE, "categories without annotations", "nothing, if that is meant"),
    "file-outside": Kind(ERROR, "file names that leave the image folder", "make them paths below the folder"),
    "file-twice": Kind(WARNING, "files listed by several images", "list each file once"),
    "file-name-off": Kind(ERROR, "file names that are nearly those on the disk", "write them as they are (--fix does)"),
    "missing-file": Kind(ERROR, "image files that are not there", "add the files, or remove the images"),
    "unreadable-image": Kind(ERROR, "images that cannot be read", "replace the files"),
    "truncated-image": Kind(ERROR, "truncated images", "copy the files again"),
    "size-differs": Kind(ERROR, "images of another size than declared", "correct width and height, or the files"),
    "exif-swapped": Kind(ERROR, "images declared as before their EXIF rotation", "rotate annotations or files"),
    "exif-orientation": Kind(NOTE, "images with an EXIF rotation", "nothing: it is applied"),
    "grey-image": Kind(NOTE, "grey images", "nothing: they become three equal channels"),
    "cmyk-image": Kind(NOTE, "CMYK images", "nothing: they are converted, without their colour profile"),
    "alpha-image": Kind(NOTE, "images with an alpha channel or transparent colour", "nothing: alpha is left out"),
    "palette-image": Kind(NOTE, "images with a palette", "nothing: they are converted"),
    "16-bit-image": Kind(NOTE, "16-bit images", "nothing: they are shifted to 8 bits"),
    "16-bit-range": Kind(WARNING, "16-bit images that use a part of their range, nearly black in 8 bits", "scale "
                         "them (--fix writes copies of 8 bits, all by one factor)"),
    "several-frames": Kind(NOTE, "images of several frames", "nothing: the first is used"),
    "duplicate-image": Kind(WARNING, "images of equal pixels", "keep one of each"),
    "image-without-annotations": Kind(NOTE, "images without annotations", "nothing, if they are meant as background"),
    "box-empty": Kind(ERROR, "boxes without area", "correct or remove them"),
    "box-outside": Kind(ERROR, "boxes outside of their image", "correct or remove them"),
    "box-sticks-out": Kind(WARNING, "boxes that reach beyond their image", "clip them"),
    "box-xyxy": Kind(ERROR, "boxes that look like [x0, y0, x1, y1]", "write [x, y, width, height]"),
    "box-normalised": Kind(ERROR, "boxes that look like fractions of the image", "write px"),
    "box-off-mask": Kind(WARNING, "boxes that do not fit their masks", "compute the boxes from the masks"),
    "annotation-twice": Kind(WARNING, "annotations of equal image, category and box", "keep one of each"),
    "polygon-too-short": Kind(ERROR, "polygons of fewer than 3 points or an odd number of values", "remove them"),
    "polygon-outside": Kind(ERROR, "polygons far outside of their image", "correct or remove them"),
    "polygon-too-long": Kind(ERROR, "polygons that would take too much memory to draw", "correct them or their boxes"),
    "rle-size": Kind(ERROR, "RLE masks of another size than their image", "make the two agree"),
    "rle-damaged": Kind(ERROR, "RLE masks whose counts are damaged", "encode them again"),
    "polygon-hole": Kind(WARNING, "polygons inside another one of their annotation, which training fills", "encode "
                         "holes as RLE (--fix does where the area says so), or remove the inner polygons"),
    "class-of-crowds": Kind(WARNING, "classes of which there are crowds only", CROWD_REMEDY),
    "many-crowds": Kind(WARNING, "an unusual number of crowds", CROWD_REMEDY),
    "crowd-like": Kind(WARNING, "annotations marked like crowds, which count as plain objects", "set iscrowd to 1 for "
                       "those that shall not be trained on, or remove the mark"),
    "no-mask": Kind(NOTE, "annotations without segmentation in a file that has some", "nothing for boxes; masks are "
                    "trained on the others"),
    "small-for-image": Kind(NOTE, "large images whose objects are small", "train on windows of them: INPUT.TILE and "
                            "TEST.TILE, which the recipe of se-det train DATA sets (docs/large_images.md)"),
    "crowded-image": Kind(WARNING, "images of more objects than COCO's AP looks at detections", "raise "
                          "TEST.DETECTIONS_PER_IMAGE and TEST.MAX_DETS_PER_IMAGE"),
    "area-off": Kind(WARNING, "areas far from those of mask or box", "compute them again"),
    "split-category": Kind(ERROR, "categories that differ between the splits", "declare the same ones in both files"),
    "split-duplicate": Kind(ERROR, "images that the other split has too", "take them out of one of the splits"),
    "split-unreadable": Kind(WARNING, "images of the other split that could not be compared", "check that split"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One fault at one place.

    Attributes:
        kind: a key of `KINDS`.
        part: "images", "annotations", "categories" or "file".
        at: the position in that list of the JSON; -1 for the file as a whole.
        id: the entry's id as it stands there; None without a usable one.
        file: the image file's name, where there is one.
        detail: what was found, to be read after the place.
    """

    __slots__ = ("at", "detail", "file", "id", "kind", "part")
    kind: str
    part: str
    at: int
    id: Any
    file: str | None
    detail: str

    def sentence(self) -> str:
        """The place and what is wrong there."""
        noun = {"images": "image", "annotations": "annotation", "categories": "category"}.get(self.part)
        place = "" if noun is None else f"{noun} {self.id!r}" if self.id is not None else f"{noun} entry {self.at}"
        file = f"{self.file!a}" if self.file else ""
        return f"{place}{f' ({file})' if place and file else file}{': ' if place or file else ''}{self.detail}"


class Findings:
    """All faults of a data set, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def add(
        self, kind: str, detail: str, *, part: str = "file", at: int = -1, id: Any = None, file: str | None = None
    ) -> None:
        """Note a fault."""
        self._found[kind].append(Finding(kind, part, int(at), usable_id(id), file, detail))

    def of_kinds(self, *kinds: str) -> list[Finding]:
        """The faults of these kinds."""
        return [finding for kind in kinds for finding in self._found[kind]]

    def positions(self, part: str, *kinds: str) -> set[int]:
        """Where in a list of the JSON these kinds were found."""
        return {finding.at for finding in self.of_kinds(*kinds) if finding.part == part}

    def counts(self, severity: str | None = None) -> dict[str, int]:
        """Number of findings of each kind."""
        return {
            kind: len(found)
            for kind, found in self._found.items()
            if found and (severity is None or KINDS[kind].severity == severity)
        }

    def __iter__(self) -> Iterable[Finding]:
        for found in self._found.values():
            yield from found


def usable_id(value: Any) -> int | str | None:
    """An id that can be looked up and written; None for anything else, True and 1.0 included."""
    return value if type(value) in (int, str) else None


def numbers(values: list[Any]) -> np.ndarray:
    """float64 (n,): the numbers among JSON values; nan for anything else. Infinite and huge ones are inf."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    return np.fromiter(map(_number, values), np.float64, len(values))


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number, finite or not; true and false are none."""
    return type(value) in (int, float)
