"""What annotations refer to, and their numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotation_marks import crowd_like_marks, crowd_warnings
from ..coco_json import shorten
from .document import Document
from .findings import Findings, is_number, numbers, usable_id
from .image_entries import ImageTable, check_ids

JUDGED = 100  # detections of an image that COCO's AP looks at


@dataclass
class AnnotationTable:
    """Of n annotations.

    Attributes:
        ids: int or str; None where it is neither.
        owner: int64 (n,) position of the image; -1 without one.
        category: int64 (n,) position of the category; -1 without one.
        xywh: float64 (n, 4) boxes px as they stand there; nan where they are no four finite numbers.
        crowd: bool (n,).
        area: float64 (n,) as it stands there; nan without a usable one.
    """

    ids: list[int | str | None]
    owner: np.ndarray
    category: np.ndarray
    xywh: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


def check_annotations(
    document: Document, images: ImageTable, categories: dict[int, int], findings: Findings
) -> AnnotationTable:
    """References, boxes, areas and crowd marks, and what is not used."""
    found = document.annotations
    ids, _ = check_ids(found, "annotations", "annotation-id-twice", findings)
    owner = _positions(found, ids, "image_id", images.position, "dangling-image", findings)
    category = _positions(found, ids, "category_id", categories, "undeclared-category", findings)
    used = np.bincount(owner[owner >= 0], minlength=len(images.ids))
    twice = findings.positions("images", "image-id-twice")  # whose annotations stand under the first of that id
    for at in np.flatnonzero(used == 0):
        if int(at) not in twice:
            findings.add("image-without-annotations", "no annotations", part="images", at=at, id=images.ids[at],
                         file=images.names[at])  # fmt: skip
    used = np.bincount(category[category >= 0], minlength=len(document.categories))
    for category_id, at in categories.items():
        if not used[at]:
            findings.add("unused-category", f"{document.categories[at].get('name')!a} has no annotations",
                         part="categories", at=at, id=category_id)  # fmt: skip
    crowd = _crowds(found, ids, findings)
    _check_marks(document, ids, category, crowd, findings)
    for at in np.flatnonzero(np.bincount(owner[owner >= 0], minlength=len(images.ids)) > JUDGED):
        count = int((owner == at).sum())
        findings.add("crowded-image", f"{count} annotations", part="images", at=at, id=images.ids[at],
                     file=images.names[at])  # fmt: skip
    return AnnotationTable(
        ids=ids,
        owner=owner,
        category=category,
        xywh=_boxes(found, ids, findings),
        crowd=crowd,
        area=_areas(found, ids, findings),
    )


def _check_marks(
    document: Document, ids: list[Any], category: np.ndarray, crowd: np.ndarray, findings: Findings
) -> None:
    names = [str(entry.get("name")) for entry in document.categories]
    for kind, sentence in crowd_warnings(crowd, category, names):
        findings.add(kind, sentence)
    for key, positions in crowd_like_marks(document.annotations).items():
        for at in positions:
            findings.add("crowd-like", f"it is marked {key!a}, and iscrowd is not set",
                         part="annotations", at=at, id=ids[at])  # fmt: skip


def _positions(
    found: list[dict], ids: list[Any], key: str, known: dict[Any, int], dangling: str, findings: Findings
) -> np.ndarray:
    # By type first: True and 1.0 would be found as 1, and a list cannot be looked up at all.
    values = [usable_id(annotation.get(key)) for annotation in found]
    positions = np.fromiter((known.get(value, -1) for value in values), np.int64, len(values))
    for at in np.flatnonzero(positions < 0):
        given = found[at].get(key)
        if values[at] is None:
            what = f"no {key}" if given is None else f"{key} is {shorten(given)}, not an id"
            findings.add("wrong-type", what, part="annotations", at=at, id=ids[at])
        else:
            findings.add(dangling, f"{key} is {shorten(given)}", part="annotations", at=at, id=ids[at])
    return positions


def _boxes(found: list[dict], ids: list[Any], findings: Findings) -> np.ndarray:
    boxes = [annotation.get("bbox") for annotation in found]
    listed = [box if isinstance(box, list) and len(box) == 4 else (None,) * 4 for box in boxes]
    xywh = np.stack([numbers([box[i] for box in listed]) for i in range(4)], axis=1)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(xywh) < 1e30).all(axis=1)
    for at in np.flatnonzero(wrong):
        box = boxes[at]
        kind = "not-finite" if all(map(is_number, listed[at])) else "wrong-type"
        what = "no bbox" if box is None else f"bbox is {shorten(box)}, not four finite numbers"
        findings.add(kind, what, part="annotations", at=at, id=ids[at])
    xywh[wrong] = np.nan
    return xywh


def _crowds(found: list[dict], ids: list[Any], findings: Findings) -> np.ndarray:
    marks = [annotation.get("iscrowd", 0) for annotation in found]
    if not (set(map(type, marks)) <= {int, bool} and set(marks) <= {0, 1}):
        for at, mark in enumerate(marks):
            if type(mark) not in (int, bool) or mark not in (0, 1):
                findings.add("wrong-type", f"iscrowd is {shorten(mark)}, neither 0 nor 1",
                             part="annotations", at=at, id=ids[at])  # fmt: skip
                marks[at] = 0
    return np.array(marks, bool)


def _areas(found: list[dict], ids: list[Any], findings: Findings) -> np.ndarray:
    given = [annotation.get("area") for annotation in found]
    areas = numbers([np.nan if area is None else area for area in given])
    with np.errstate(invalid="ignore"):
        wrong = ~((areas >= 0) & np.isfinite(areas))
    for at in np.flatnonzero(wrong):
        if given[at] is not None:
            infinite = is_number(given[at]) and not np.isfinite(areas[at])
            findings.add("not-finite" if infinite else "wrong-type",
                         f"area is {shorten(given[at])}, not a number from 0 on", part="annotations", at=at,
                         id=ids[at])  # fmt: skip
    areas[wrong] = np.nan
    return areas


def check_repeats(table: AnnotationTable, findings: Findings) -> None:
    """Annotations that say the same as an earlier one."""
    rows = np.column_stack((table.owner, table.category, table.xywh))
    known = np.flatnonzero((rows[:, 0] >= 0) & (rows[:, 1] >= 0) & np.isfinite(rows).all(axis=1) & ~table.crowd)
    order = known[np.lexsort(rows[known].T[::-1])]
    first = np.concatenate(([True], (rows[order[1:]] != rows[order[:-1]]).any(axis=1))) if len(order) else order
    group = np.cumsum(first) - 1
    starts = order[np.flatnonzero(first)]
    # lexsort is stable: the first of a group is the first in the file.
    for at, number in sorted(zip(order[~first].tolist(), group[~first].tolist())) if len(order) else ():
        findings.add("annotation-twice", f"as annotation {table.ids[starts[number]]!r}",
                     part="annotations", at=at, id=table.ids[at])  # fmt: skip


def class_counts(table: AnnotationTable, document: Document) -> list[tuple[str, int]]:
    """(name, annotations) of each category, in the order of the file."""
    used = Counter(table.category[table.category >= 0].tolist())
    return [(str(entry.get("name")), used[at]) for at, entry in enumerate(document.categories)]
