"""The annotations of a cleaned copy of a data set: which are kept, and how they are mended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pycocotools import mask as mask_tools

from ..annotation_marks import is_set
from ..coco_json import PACKED, as_numpy
from ..polygons import even_odd_area, polygon_area
from .findings import Change, is_number
from .geometry import as_boxes
from .image_entries import odd_ids
from .masks import polygon_rows
from .report import Report

UNUSABLE_ANNOTATIONS = ("dangling-image", "undeclared-category", "box-empty", "box-outside", "annotation-twice")
DECIMALS = 6  # of a px, of boxes that are written anew


def kept_annotations(report: Report, images: set[int], changes: list[Change], uncrowd: bool) -> Iterator[dict]:
    """The annotations that stay, mended. They are made as they are written: a second copy of all would not fit."""
    findings, table = report.findings, report.annotations
    reasons: dict[int, str] = {}
    for finding in findings.of_kinds(*UNUSABLE_ANNOTATIONS):
        reasons.setdefault(finding.at, finding.detail)
    fresh = odd_ids(table.ids)
    texts = any(type(value) is str for at, value in enumerate(table.ids) if at not in fresh)
    new_id = 0 if texts else max((value for at, value in enumerate(table.ids) if at not in fresh), default=0)
    fresh |= findings.positions("annotations", "annotation-id-twice")
    wrong_area = findings.positions("annotations", "area-off")
    boxes = as_boxes(table.xywh, report.conventions.corners)
    outlying = findings.positions("annotations", "box-sticks-out")
    polygons = _Polygons(report)
    forms: dict[int, list[str]] = {}
    for finding in findings.of_kinds("other-form"):
        if finding.part == "annotations":
            forms.setdefault(finding.at, []).append(finding.detail)
    for at, entry in enumerate(report.document.annotations):
        owner = int(table.owner[at])
        why = reasons.get(at) or ("its box, image or category is missing" if _reason_to_drop(report, at) else None)
        if why or owner not in images:
            if why:  # those of an image that is left out are told of with it
                changes.append({"part": "annotations", "id": table.ids[at], "change": "left out", "why": why})
            continue
        size = report.images.sizes[owner]
        height, width = size if np.isfinite(size).all() else report.pictures[owner].size
        entry, done = dict(entry), forms.get(at, [])
        if at in fresh:
            new_id += 1
            entry["id"] = f"new {new_id}" if texts else new_id
            done.append(f"id {entry['id']} given")
        box = boxes[at]
        if report.conventions.fractions[at]:
            box = box * [width, height, width, height]
        if report.conventions.corners[at] or report.conventions.fractions[at]:
            done.append("box rewritten as [x, y, width, height] px")
        low, high = np.maximum(box[:2], 0), np.minimum(box[:2] + box[2:], [width, height])
        if (np.round(high - low, DECIMALS) <= 0).any() or (np.round(box[2:], DECIMALS) <= 0).any():
            changes.append({"part": "annotations", "id": table.ids[at], "change": "left out",
                            "why": "its box has no area within its image"})  # fmt: skip
            continue
        clipped = np.concatenate((low, high - low))
        if at in outlying and not np.allclose(clipped, box, rtol=0, atol=1e-6):
            done.append("box clipped to its image")
            box = clipped
        if not np.array_equal(box, table.xywh[at]):
            entry["bbox"] = [round(float(value), DECIMALS) for value in box]
        holes = polygons.with_holes(entry, (int(height), int(width)))
        _mend_mask(entry, at, at in report.masks.unusable, polygons, done)
        if holes is not None:
            entry["segmentation"] = holes
            done.append("polygons with holes encoded as RLE, as its area says")
        if type(entry.get("iscrowd", 0)) not in (int, bool) or entry.get("iscrowd", 0) not in (0, 1):
            entry["iscrowd"] = int(str(entry["iscrowd"]) in ("1", "1.0"))
            done.append(f"iscrowd set to {entry['iscrowd']}")
        if uncrowd and is_set(entry.get("iscrowd", 0)):
            entry["iscrowd"] = 0
            done.append("iscrowd set to 0")
        if at in wrong_area or ("area" in entry and not np.isfinite(table.area[at])):
            area = report.expected_area[at] if not report.conventions.fractions[at] else np.nan
            entry["area"] = float(area if np.isfinite(area) else box[2] * box[3])
            done.append("area computed again")
        if done:
            changes.append({"part": "annotations", "id": table.ids[at], "change": "; ".join(done), "why": "check"})
        yield entry


def _reason_to_drop(report: Report, at: int) -> bool:
    table = report.annotations
    return table.owner[at] < 0 or table.category[at] < 0 or not np.isfinite(table.xywh[at]).all()


class _Polygons:
    """Each annotation's sound polygons, as lists again."""

    def __init__(self, report: Report) -> None:
        packed = report.document.polygons
        _, self._start = polygon_rows(report.document)
        self._values = as_numpy(packed.values)
        self._last = np.cumsum(as_numpy(packed.counts))
        self._counts = as_numpy(packed.counts)
        self._bad = report.masks.bad_polygons
        self._depth = report.masks.depth

    def of(self, number: int) -> tuple[list[list[float]], int]:
        """The sound polygons, and how many are left out."""
        rows = range(int(self._last[number] - self._counts[number]), int(self._last[number]))
        sound = [self._values[self._start[row] : self._start[row + 1]].tolist() for row in rows if not self._bad[row]]
        return sound, len(rows) - len(sound)

    def with_holes(self, entry: dict, size: tuple[int, int]) -> dict | None:
        """The RLE of an annotation whose `area` says that polygons inside others are holes; None for any other."""
        number = entry.get(PACKED)
        if number is None:
            return None
        rows = np.arange(int(self._last[number] - self._counts[number]), int(self._last[number]))
        rows = rows[~self._bad[rows]]
        depth = self._depth[rows]
        if not (depth % 2).any():
            return None
        polygons = [self._values[self._start[row] : self._start[row + 1]] for row in rows]
        areas = np.array([polygon_area(polygon.reshape(-1, 2)) for polygon in polygons])
        hollow, filled = even_odd_area(areas, depth), float(areas[depth == 0].sum())
        area = entry.get("area")
        if not is_number(area) or not abs(area - hollow) < min(abs(area - filled), abs(area - areas.sum())):
            return None
        mask = np.zeros(size, bool)
        for polygon in polygons:
            (rle,) = mask_tools.frPyObjects([polygon.tolist()], *size)
            mask ^= mask_tools.decode(rle).astype(bool)
        encoded = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        return {"size": list(size), "counts": encoded["counts"].decode("ascii")}


def _mend_mask(entry: dict, at: int, unusable: bool, polygons: _Polygons, done: list[str]) -> None:
    number = entry.pop(PACKED, None)
    if number is not None:
        sound, left_out = polygons.of(number)
        entry["segmentation"] = sound
        if left_out:
            done.append(f"{left_out} polygons removed")
    elif unusable:
        entry["segmentation"] = []
        done.append("segmentation removed")
