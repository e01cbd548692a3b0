"""Values that have one meaning but not the form that COCO gives them: numbers as text, ids as floats, points in pairs.

They are errors, as programs that read the file will stumble over them; the rest of the check sees what they mean, and
the cleaned copy has them in COCO's form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..annotation_marks import is_set
from ..coco_json import PACKED, as_numpy, shorten
from ..rle import bitmap, decompress_counts
from .document import Document
from .findings import Findings, is_number

MAX_PIXELS = 2**28  # of a mask that is drawn to find its box
WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.0*)?")


def mend_value_forms(document: Document, findings: Findings) -> None:
    """Bring the entries of `document` into COCO's form where they have one meaning; each is noted."""
    _mend_ids(document, findings)
    for at, image in enumerate(document.images):
        for key in ("width", "height"):
            _mend(findings, "images", at, image, key, _side)
    first = _first_rows(document)
    for at, annotation in enumerate(document.annotations):
        _mend(findings, "annotations", at, annotation, "bbox", _box)
        _mend(findings, "annotations", at, annotation, "area", _area)
        _mend(findings, "annotations", at, annotation, "iscrowd", _mark)
        _mend_segmentation(document, findings, at, annotation, first)
    _add_boxes(document, findings)


def _mend(findings: Findings, part: str, at: int, entry: dict, key: str, convert: Callable[[Any], Any]) -> None:
    if key not in entry:
        return
    value = entry[key]
    meant = convert(value)
    if meant is not None:
        _note(findings, part, at, entry, f"{key} {shorten(value)} is meant as {shorten(meant)}")
        entry[key] = meant


def _note(findings: Findings, part: str, at: int, entry: dict, detail: str) -> None:
    findings.add("other-form", detail, part=part, at=at, id=entry.get("id"))


def _integer(value: Any) -> int | None:
    """The whole number that a text or float stands for; None for an int, and for what is none."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and WHOLE_NUMBER.fullmatch(value.strip()):
        return int(float(value)) if "." in value else int(value)
    return None


def _side(value: Any) -> int | None:
    return _integer(value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if is_number(value):
        return value
    if isinstance(value, str):
        try:
            number = float(value.strip())  # with a comma it may be thousands or a fraction
        except ValueError:
            return None
        return number if np.isfinite(number) else None
    return None


def _box(value: Any) -> list[float] | None:
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,;\[\]()]+", value) if part]
    elif isinstance(value, dict):
        for keys in (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height")):
            if set(keys) == set(value):
                value = [value[key] for key in keys]
                break
    elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    elif not isinstance(value, list) or all(map(is_number, value)):
        return None
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(side) for side in value]
    return None if None in numbers else numbers


def _area(value: Any) -> float | None:
    return _number(value) if isinstance(value, str) else None


def _mark(value: Any) -> int | None:
    if type(value) is int or isinstance(value, bool):
        return None
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "0", "0.0", "false", "no")):
        return 0
    return 1 if is_set(value) else 0 if value == 0.0 else None


def _mend_ids(document: Document, findings: Findings) -> None:
    """Ids that are whole numbers in another form become so, where no two become one."""
    for part, key in (("images", "image_id"), ("categories", "category_id"), ("annotations", None)):
        entries = getattr(document, part)
        ids = [entry.get("id") for entry in entries]
        texts = sum(isinstance(value, str) for value in ids)
        # Texts are ids of their own, but for categories, and among numbers.
        meant = {
            at: number
            for at, value in enumerate(ids)
            if (number := _integer(value)) is not None
            and (not isinstance(value, str) or part == "categories" or texts < len(ids))
        }
        after = [meant.get(at, value) for at, value in enumerate(ids)]
        plain = [value for value in after if isinstance(value, (int, str))]
        if len(set(plain)) == len(plain):
            for at, number in meant.items():
                _note(findings, part, at, entries[at], f"id {shorten(ids[at])} is meant as {number}")
                entries[at]["id"] = number
        if key is None:
            continue
        known = {entry.get("id") for entry in entries if isinstance(entry.get("id"), (int, str))}
        by_number: dict[int, Any] = {}
        for value in known:
            by_number[value if isinstance(value, int) else _integer(value)] = value
        for at, annotation in enumerate(document.annotations):
            value = annotation.get(key)
            if isinstance(value, (list, dict, bool)) or value is None or (
                type(value) in (int, str) and value in known
            ):  # fmt: skip
                continue
            number = value if isinstance(value, int) else _integer(value)
            if number is not None and number in by_number:
                meaning = by_number[number]
                _note(findings, "annotations", at, annotation, f"{key} {shorten(value)} is meant as {meaning!r}")
                annotation[key] = meaning


def _mend_segmentation(document: Document, findings: Findings, at: int, annotation: dict, first: np.ndarray) -> None:
    packed = annotation.get(PACKED)
    if packed is not None:
        _join_pairs(document, findings, at, annotation, *first[packed].tolist())
        return
    value = annotation.get("segmentation")
    if value is None or value == [] or value == {}:
        return
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "counts" in value[0]:
        value = value[0]
    if isinstance(value, dict):
        meant = _run_lengths(value)
        if meant is not None or value is not annotation["segmentation"]:
            annotation["segmentation"] = meant or value
            _note(findings, "annotations", at, annotation, "its RLE has numbers in another form")
        return
    polygons = _polygons(value)
    if polygons is not None:
        annotation["segmentation"] = polygons
        document.polygons.take(annotation)
        _note(findings, "annotations", at, annotation, f"segmentation {shorten(value)} is meant as "
              f"{len(polygons)} polygon{'s' if len(polygons) > 1 else ''}")  # fmt: skip


def _run_lengths(rle: dict) -> dict | None:
    counts, size = rle.get("counts"), rle.get("size")
    meant, changed = dict(rle), False
    if isinstance(counts, list) and not all(type(count) is int for count in counts):
        numbers = [count if type(count) is int else _integer(count) for count in counts]
        if None in numbers:
            return None
        meant["counts"], changed = numbers, True
    if isinstance(size, list) and len(size) == 2 and not all(map(is_number, size)):
        numbers = [side if type(side) is int else _integer(side) for side in size]
        if None in numbers:
            return None
        meant["size"], changed = numbers, True
    return meant if changed else None


def _polygons(value: Any) -> list[list[float]] | None:
    """Lists of x, y, x, y, ... of a segmentation in another form; None where it has not one meaning."""
    if not isinstance(value, list) or not value:
        return None
    flat = _coordinates(value)
    if flat is not None:  # one polygon: numbers, pairs or points in a list
        return [flat] if len(flat) >= 6 else None
    polygons = [_coordinates(polygon) for polygon in value]
    return None if None in polygons or not all(len(polygon) >= 6 for polygon in polygons) else polygons


def _coordinates(value: Any) -> list[float] | None:
    """x, y, x, y, ... of one polygon: of numbers (or texts), of pairs, or of {"x": ..., "y": ...}."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,;]+", value) if part]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(point, dict) and {"x", "y"} <= point.keys() for point in value):
        value = [[point["x"], point["y"]] for point in value]
    if all(isinstance(point, list) and len(point) == 2 and not isinstance(point[0], list) for point in value):
        value = [side for point in value for side in point]
    numbers = [_number(side) for side in value]
    return None if None in numbers or len(numbers) % 2 else numbers


def _join_pairs(document: Document, findings: Findings, at: int, annotation: dict, row: int, value: int) -> None:
    """[[x, y], [x, y], ...] looks like polygons of one point each, the first of which has that row and value."""
    count = document.polygons.counts[annotation[PACKED]]
    if count < 3 or set(document.polygons.lengths[row : row + count]) != {2}:
        return
    annotation["segmentation"] = [document.polygons.values[value : value + 2 * count].tolist()]
    del annotation[PACKED]
    document.polygons.take(annotation)
    _note(findings, "annotations", at, annotation, f"segmentation of {count} pairs is meant as one polygon")


def _first_rows(document: Document) -> np.ndarray:
    """int64 (packed, 2): where each packed segmentation's polygons and values start."""
    counts, lengths = np.array(document.polygons.counts), np.array(document.polygons.lengths)
    rows = np.cumsum(counts) - counts
    values = np.concatenate(([0], np.cumsum(lengths)))
    return np.stack([rows, values[rows]], axis=1) if len(counts) else np.zeros((0, 2), np.int64)


def _add_boxes(document: Document, findings: Findings) -> None:
    """A box that is missing, or no box, is that of the mask, where there is a sound one."""
    lacking = [at for at, annotation in enumerate(document.annotations) if not _is_box(annotation.get("bbox"))]
    if not lacking:
        return
    first = _first_rows(document)
    values, lengths = as_numpy(document.polygons.values), as_numpy(document.polygons.lengths)
    for at in lacking:
        annotation = document.annotations[at]
        packed, rle = annotation.get(PACKED), annotation.get("segmentation")
        box = None
        if packed is not None:
            row, start = first[packed]
            sizes = lengths[row : row + document.polygons.counts[packed]]
            xy = values[start : start + sizes.sum()]
            if len(xy) and not (sizes % 2).any() and np.isfinite(xy).all():
                low, high = xy.reshape(-1, 2).min(axis=0), xy.reshape(-1, 2).max(axis=0)
                box = [*low.tolist(), *(high - low).tolist()]
        elif isinstance(rle, dict):
            box = _box_of_runs(rle)
        if box is not None and box[2] > 0 and box[3] > 0:
            given = "no bbox" if not annotation.get("bbox") else f"the bbox {shorten(annotation['bbox'])}"
            annotation["bbox"] = box
            _note(findings, "annotations", at, annotation, f"it has {given}, and a mask, whose box it is given")


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(is_number(v) and abs(v) < 1e30 for v in value)


def _box_of_runs(rle: dict) -> list[float] | None:
    """XYWH of a mask of run lengths; None where they are damaged, which the check of masks names."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(map(is_number, size)) or not counts:
        return None
    height, width = map(int, size)
    if isinstance(counts, str) and counts.isascii():
        runs, _, valid = decompress_counts([counts.encode()])
        if not valid.all():
            return None
    elif isinstance(counts, list) and all(type(count) is int and abs(count) < 2**40 for count in counts):
        runs = np.array(counts, np.int64)
    else:
        return None
    if not 0 < height * width <= MAX_PIXELS or (runs < 0).any() or (runs > MAX_PIXELS).any():
        return None
    if runs.sum() != height * width:
        return None
    rows, columns = np.nonzero(bitmap(runs, height, width))
    if not len(rows):
        return None
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    return [float(v) for v in (*low, high[0] - low[0], high[1] - low[1])]
