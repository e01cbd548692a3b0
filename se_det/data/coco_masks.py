"""The segmentations of a COCO file as flat arrays, checked: polygons and run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .coco_checks import Id
from .coco_json import PACKED, PackedPolygons, as_numpy, shorten
from .polygons import MAX_OUTLINE, outline_lengths
from .rle import decompress_counts

FORM = (
    "It must be a list of polygons [[x, y, x, y, x, y, ...], ...] of 3 or more points each, or an RLE "
    "{'size': [height, width], 'counts': [...] or text}"
)


@dataclass
class Segmentations:
    """Of n annotations.

    Attributes:
        vertices: float64 (V, 2) xy px of all polygons.
        polygon_start: int64 (P + 1,) where each polygon's vertices start.
        polygon_range: int64 (n, 2) first polygon of each annotation and the one after its last.
        runs: uint32 (R,) run lengths of all RLEs.
        runs_range: int64 (n, 2) first and after-last run length; equal without an RLE.
    """

    vertices: np.ndarray
    polygon_start: np.ndarray
    polygon_range: np.ndarray
    runs: np.ndarray
    runs_range: np.ndarray


def segmentations(
    path: Path, annotations: list[dict], ids: Sequence[Id], sizes: np.ndarray, xywh: np.ndarray,
    packed: PackedPolygons, *, lenient: bool,
) -> Segmentations:  # fmt: skip
    """Take the segmentations of `annotations` apart; a missing, null or empty one is none.

    Args:
        ids: the annotations' ids, for messages.
        sizes: int64 (n, 2) height and width of each annotation's image.
        xywh: float64 (n, 4) boxes px.
        packed: the polygons that `parse_coco` took out.
        lenient: leave out polygons of fewer than 3 points instead of refusing them.

    Raises:
        DataError: naming the annotation whose segmentation is malformed, not finite, far outside of its image, too
            long to be drawn, or an RLE of another size.
    """
    vertices, polygon_start, polygon_range = _polygons(path, annotations, ids, sizes, xywh, packed, lenient)
    runs, runs_range = _runs(path, annotations, ids, sizes)
    return Segmentations(vertices, polygon_start, polygon_range, runs, runs_range)


def _polygons(
    path: Path, annotations: list[dict], ids: Sequence[Id], sizes: np.ndarray, xywh: np.ndarray,
    packed: PackedPolygons, lenient: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    values, lengths, counts = (as_numpy(part) for part in (packed.values, packed.lengths, packed.counts))
    number = np.fromiter((annotation.get(PACKED, -1) for annotation in annotations), np.int64, len(annotations))
    ends = np.cumsum(counts)
    has = number >= 0
    polygon_range = np.zeros((len(annotations), 2), np.int64)
    polygon_range[has] = np.stack([(ends - counts)[number[has]], ends[number[has]]], axis=1)

    # Whose each polygon is; -1 for one of an object that is no annotation.
    annotation_of = np.full(len(counts), -1)
    annotation_of[number[has]] = np.flatnonzero(has)
    owner = np.repeat(annotation_of, counts)
    left_out = owner < 0
    if lenient:
        left_out |= lengths < 6
    if left_out.any():
        values, lengths, polygon_range = _drop(left_out, values, lengths, polygon_range)
        owner = owner[~left_out]
    for fault, reason in ((lengths % 2 == 1, "an odd number of values"), (lengths < 6, "fewer than 3 points")):
        if fault.any():
            at = int(np.argmax(fault))
            raise DataError(
                f"{path}: annotation {ids[owner[at]]!r} has a polygon in its segmentation with {reason} "
                f"({lengths[at]} values). {FORM}."
            )
    start = np.concatenate(([0], np.cumsum(lengths)))
    if len(lengths):
        _check_extent(path, ids, sizes, owner, values, start)
        _check_outlines(path, ids, owner, outline_lengths(values.reshape(-1, 2), start[:-1] // 2, xywh[owner],
                                                          sizes[owner].astype(np.float64)))  # fmt: skip
    return values.reshape(-1, 2), start // 2, polygon_range


def _drop(
    polygons: np.ndarray, values: np.ndarray, lengths: np.ndarray, polygon_range: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept_before = np.concatenate(([0], np.cumsum(~polygons)))
    return values[np.repeat(~polygons, lengths)], lengths[~polygons], kept_before[polygon_range]


def _check_extent(
    path: Path, ids: Sequence[Id], sizes: np.ndarray, owner: np.ndarray, values: np.ndarray, start: np.ndarray
) -> None:
    """Drawing a polygon takes memory as long as its outline: one far outside of its image ends the process."""
    longest = sizes[owner].max(axis=1)
    high, low = np.maximum.reduceat(values, start[:-1]), np.minimum.reduceat(values, start[:-1])
    wrong = ~((high <= 2 * longest) & (low >= -longest))  # written so that nan is wrong
    if wrong.any():
        at = int(np.argmax(wrong))
        height, width = sizes[owner[at]]
        worst = high[at] if low[at] >= -longest[at] else low[at]
        raise DataError(
            f"{path}: annotation {ids[owner[at]]!r} has a polygon vertex coordinate {worst} in its segmentation, which "
            f"is not a number of px in or near its image of {width} x {height}. Correct the segmentation."
        )


def _check_outlines(path: Path, ids: Sequence[Id], owner: np.ndarray, lengths: np.ndarray) -> None:
    if (lengths > MAX_OUTLINE).any():
        at = int(np.argmax(lengths))
        raise DataError(
            f"{path}: annotation {ids[owner[at]]!r} has a polygon in its segmentation whose outline, in its image or "
            f"blown up from its box, is {lengths[at]:.0f} px long (at most {MAX_OUTLINE}): drawing it would take too "
            "much memory. Correct the segmentation or the bbox, or encode the mask as an RLE."
        )


def _runs(path: Path, annotations: list[dict], ids: Sequence[Id], sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths uint32 (R,) of all RLEs, and int64 (n, 2) each annotation's range among them."""
    plain: list[tuple[int, list]] = []
    texts: list[tuple[int, bytes]] = []
    for at, annotation in enumerate(annotations):
        rle = annotation.get("segmentation")
        if rle is None or rle == []:
            continue
        counts = _counts(path, ids[at], rle, sizes[at])
        (texts if isinstance(counts, bytes) else plain).append((at, counts))

    values, numbers, valid = decompress_counts([text for _, text in texts])
    owners = np.array([at for at, _ in texts] + [at for at, _ in plain], np.int64)
    numbers = np.concatenate((numbers, np.array([len(counts) for _, counts in plain], np.int64)))
    values = np.concatenate([values, *(np.array(counts, np.int64) for _, counts in plain)])
    valid = np.concatenate((valid, np.ones(len(plain), bool)))
    ends = np.cumsum(numbers)
    runs_range = np.zeros((len(annotations), 2), np.int64)
    if len(owners):
        runs_range[owners] = np.stack([ends - numbers, ends], axis=1)
        total = np.add.reduceat(values, ends - numbers)
        # Each run is bounded first, so that no sum can run over and be right by chance.
        fits = np.logical_and.reduceat((values >= 0) & (values <= 2**40), ends - numbers)
        wrong = ~(valid & fits & (total == sizes[owners].prod(axis=1)))
        if wrong.any():
            at = owners[int(np.argmax(wrong))]
            height, width = sizes[at]
            raise DataError(
                f"{path}: annotation {ids[at]!r} has an RLE segmentation whose counts are damaged: they do not sum up "
                f"to its size, {height} x {width} (height, width). Encode the mask again, or remove the annotation."
            )
    return values.astype(np.uint32), runs_range


def _counts(path: Path, annotation_id: Id, rle: Any, size: np.ndarray) -> bytes | list[int]:
    counts = rle.get("counts") if isinstance(rle, dict) else None
    sound = isinstance(counts, str) and counts.isascii()
    if isinstance(counts, list):
        sound = set(map(type, counts)) <= {int} and max(map(abs, counts), default=0) < 2**40
    if not sound or not counts:
        raise DataError(f"{path}: annotation {annotation_id!r} has the segmentation {shorten(rle)}. {FORM}.")
    if rle.get("size") != size.tolist():
        raise DataError(
            f"{path}: annotation {annotation_id!r} has an RLE segmentation of the size {shorten(rle.get('size'))}, but "
            f"its image is {size.tolist()} (height, width). Make the two agree."
        )
    return counts.encode() if isinstance(counts, str) else counts
