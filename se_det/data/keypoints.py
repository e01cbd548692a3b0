"""Keypoints of a COCO file: which there are, which are each other's mirror image, and where they lie.

A file's coordinates are numbers of pixels, whose centres are half a pixel further: in tensors they are px of the
image's plane, as boxes are, and half a pixel is added, as Detectron2 does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .coco_json import shorten

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class KeypointLayout:
    """What all classes' keypoints are.

    Attributes:
        names: of each.
        flip: the keypoint that takes each one's place in a mirror.
        skeleton: pairs of keypoints, from 0, between which a line is drawn.
    """

    names: tuple[str, ...]
    flip: tuple[int, ...]
    skeleton: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class KeypointColumns:
    """The keypoints of a file's annotations.

    Attributes:
        layout: None where no class has keypoints, or there is a fault.
        row: int64 (annotations,), where in `values` an annotation's are; -1 without.
        values: float32 (n, K, 3), x, y, v as the tensors have them.
        fault: a sentence that says why they cannot be used; "" where they can.
    """

    layout: KeypointLayout | None
    row: np.ndarray
    values: np.ndarray
    fault: str = ""


def mirror_names(names: Sequence[str], pairs: Sequence[Sequence[str]] = ()) -> tuple[int, ...]:
    """The keypoint that takes each one's place in a mirror: by pairs of names, which work both ways; without pairs the
    one whose name has right for left (or r for l) and the other way round, if there is one; else itself."""
    other = dict(map(tuple, pairs)) | {b: a for a, b in pairs}
    if not pairs:
        places = {name.casefold(): name for name in names}
        other = {name: places.get(_other_side(name), name) for name in names}
    at = {name: number for number, name in enumerate(names)}
    flip = tuple(at.get(other.get(name, name), number) for number, name in enumerate(names))
    # What is not the mirror image of its mirror image is none.
    return tuple(to if flip[to] == number else number for number, to in enumerate(flip))


def _other_side(name: str) -> str:
    """A name in small letters, with its sides exchanged."""
    words = re.split(r"(left|right|(?<![a-z])[lr](?![a-z]))", name.casefold())
    return "".join(_SIDES.get(word, word) for word in words)


def read_keypoints(path: Path, categories: list[dict], annotations: list[dict], ids: Sequence[Any]) -> KeypointColumns:
    """The keypoints of a parsed file. Nothing is raised: who trains without keypoints does not ask."""
    none = np.full(len(annotations), -1, np.int64)
    declared = [c for c in categories if c.get("keypoints")]
    if not declared:
        return KeypointColumns(None, none, np.zeros((0, 0, 3), np.float32), f"{path}: no category has keypoints.")
    try:
        layout = _layout(path, declared)
        row, values = _values(path, annotations, ids, len(layout))
    except ValueError as error:
        return KeypointColumns(None, none, np.zeros((0, 0, 3), np.float32), str(error))
    return KeypointColumns(layout, row, values)


def _layout(path: Path, declared: list[dict]) -> KeypointLayout:
    first = declared[0]["keypoints"]
    if not isinstance(first, list) or not all(isinstance(name, str) for name in first) or len(set(first)) < len(first):
        raise ValueError(
            f"{path}: the keypoints of category {declared[0].get('id')!r} are {shorten(first)}; they must be names, "
            "each once."
        )
    for category in declared[1:]:
        if category["keypoints"] != first:
            raise ValueError(
                f"{path}: categories {declared[0].get('id')!r} and {category.get('id')!r} have different keypoints; "
                "one head predicts the same for all: give all that have some the same names in the same order."
            )
    pairs = declared[0].get("flip") or ()
    if not all(isinstance(pair, list) and len(pair) == 2 and set(pair) <= set(first) for pair in pairs):
        raise ValueError(f"{path}: flip of category {declared[0].get('id')!r} must be pairs of its keypoints' names.")
    bones = declared[0].get("skeleton") or ()
    sound = isinstance(bones, list) and all(
        isinstance(bone, list) and len(bone) == 2 and all(type(at) is int and 1 <= at <= len(first) for at in bone)
        for bone in bones
    )
    skeleton = tuple((a - 1, b - 1) for a, b in bones) if sound else ()  # it is drawn only
    return KeypointLayout(tuple(first), mirror_names(first, pairs), skeleton)


def _values(path: Path, annotations: list[dict], ids: Sequence[Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    row = np.full(len(annotations), -1, np.int64)
    at = [number for number, annotation in enumerate(annotations) if annotation.get("keypoints")]
    found = [annotations[number]["keypoints"] for number in at]
    for number, values in zip(at, found):
        if not isinstance(values, list) or len(values) != 3 * count or set(map(type, values)) - {int, float}:
            raise ValueError(
                f"{path}: annotation {ids[number]!r} has the keypoints {shorten(values)}; they must be {count} times "
                "x, y, v, as many as its category declares."
            )
    row[at] = np.arange(len(at))
    values = np.array(found, np.float64).reshape(-1, count, 3)
    wrong = ~(np.isfinite(values).all((1, 2)) & np.isin(values[..., 2], (0, 1, 2)).all(1))
    if wrong.any():
        number = at[int(np.argmax(wrong))]
        raise ValueError(
            f"{path}: annotation {ids[number]!r} has the keypoints {shorten(annotations[number]['keypoints'])}; x and "
            "y must be finite, and v 0 (not labelled), 1 (hidden) or 2 (seen)."
        )
    values[..., :2] += 0.5
    return row, values.astype(np.float32)
