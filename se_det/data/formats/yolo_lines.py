"""Label files of YOLO: a line per object, its class's number and shares of the image's sides."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import DataError
from ..coco_json import shorten
from .protocol import Reading, Shape
from .reading import number, read_text, whole

_PLAIN = re.compile(r"\d{1,6}( -?\d{1,4}(\.\d{1,30})?)*", re.ASCII)
MOST_CLASSES = 100_000
BEYOND = 0.1  # shares: tools round, and boxes of objects at the edge stick out a little


def read_labels(
    path: Path, size: tuple[int, int], classes: int, keypoints: tuple[int, int] | None, reading: Reading
) -> list[Shape]:
    """The shapes of a label file.

    Args:
        size: (width, height) px of the image as it is shown.
        classes: how many there are.
        keypoints: how many keypoints a line has, and how many numbers each, 2 or 3.

    Raises:
        DataError: a line that is none; the sentence names file, line and value.
    """
    shapes, seen = [], set()
    for at, line in enumerate(read_text(path).splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        where = f"{path}, line {at}"
        if (key := tuple(parts)) in seen:
            reading.skipped["lines that stand twice in a label file"] += 1
            continue
        seen.add(key)
        shapes.append(_shape(parts, size, classes, keypoints, where))
    return shapes


def looks_like_labels(text: str) -> bool:
    """Whether the lines of a text are objects as YOLO writes them."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return bool(lines) and all(len(parts) >= 5 and _plain(parts) for parts in lines[:20])


def _plain(parts: list[str]) -> bool:
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return False
    return 0 <= values[0] < MOST_CLASSES and values[0] == int(values[0]) and all(-1 <= v <= 2 for v in values[1:5])


def _shape(
    parts: list[str], size: tuple[int, int], classes: int, keypoints: tuple[int, int] | None, where: str
) -> Shape:
    if _PLAIN.fullmatch(" ".join(parts)):  # as nearly all are
        values, label = [float(part) for part in parts[1:]], int(parts[0])
    else:
        values = [number(part, where, f"number {at} ({shorten(part)})") for at, part in enumerate(parts[1:], 2)]
        label = whole(parts[0], where, f"the class {shorten(parts[0])}")
    if not 0 <= label < classes:
        raise DataError(
            f"{where}: the class is {label}, but there are {classes} names (0 to {classes - 1}). Add its name, or "
            "correct the line."
        )
    width, height = size
    count, per_point = keypoints or (0, 0)
    points = None
    if len(values) == 4 or (keypoints and len(values) == 4 + count * per_point):
        box = _shares(values[:4], where, " ".join(parts[:5]))
        cx, cy, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        if keypoints and len(values) > 4:
            points = _keypoints(values[4:], per_point, size, where)
        return Shape(label, box=(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), keypoints=points)
    if len(values) < 6 or len(values) % 2:
        wanted = f", or 4 + {count} x {per_point} for a box with keypoints" if keypoints else ""
        hint = " (a box with a confidence, as predictions have?)" if len(values) == 5 else ""
        if len(values) > 5 and not keypoints:
            hint = " (keypoints? They need kpt_shape in data.yaml)"
        raise DataError(
            f"{where}: {len(values)} numbers follow the class{hint}; there must be 4 for a box, or x y of 3 points or "
            f"more for a polygon{wanted}. Correct the line."
        )
    xy = _shares(values, where, " ".join(parts[:5]) + " ...")
    return Shape(label, polygons=[[v * (height if at % 2 else width) for at, v in enumerate(xy)]])


def _shares(values: list[float], where: str, shown: str) -> list[float]:
    wrong = next((v for v in values if not -BEYOND <= v <= 1 + BEYOND), None)
    if wrong is not None:
        raise DataError(
            f"{where}: {wrong:g} in '{shown}' is no share of the image's side, from 0 to 1: are these px? Divide x by "
            "the width and y by the height."
        )
    return values


def _keypoints(values: list[float], per_point: int, size: tuple[int, int], where: str) -> list[float]:
    points: list[float] = []
    for at in range(0, len(values), per_point):
        x, y = values[at : at + 2]
        seen = values[at + 2] if per_point == 3 else (2 if (x, y) != (0, 0) else 0)
        if seen not in (0, 1, 2):
            raise DataError(f"{where}: the visibility of keypoint {at // per_point} is {seen:g}; it must be 0, 1 or 2.")
        if seen:
            _shares([x, y], where, f"{x:g} {y:g}")
        points += [x * size[0], y * size[1], seen] if seen else [0.0, 0.0, 0.0]
    return points
