"""Which detections overlap which objects of their image and class, over a whole data set at once.

A cell is a class in an image, of the number class x images + image. Overlaps are pycocotools': intersection over union,
over the detection alone where the object is a crowd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

PAIRS_AT_ONCE = 2**20  # bounds the memory, about 100 MB
MASKS_IN_A_CALL = 255  # pycocotools 2.0.11 counts those of `area` in 8 bits


@dataclass(frozen=True)
class Entries:
    """Detections or objects.

    Attributes:
        cell: int64 (n,).
        area: float64 (n,) px^2.
        shapes: float64 (n, 4) XYWH px boxes, or n compressed RLEs.
    """

    cell: np.ndarray
    area: np.ndarray
    shapes: np.ndarray | Sequence[dict[str, Any]]

    def take(self, order: np.ndarray) -> Entries:
        """Those at the positions `order`."""
        array = isinstance(self.shapes, np.ndarray)
        shapes = self.shapes[order] if array else [self.shapes[i] for i in order]
        return Entries(self.cell[order], self.area[order], shapes)


@dataclass(frozen=True)
class Pairs:
    """A detection (index), an object (index) of the same cell, and their overlap, by ascending detection."""

    detection: np.ndarray
    object: np.ndarray
    overlap: np.ndarray


def find_overlaps(detections: Entries, objects: Entries, crowd: np.ndarray, min_overlap: float) -> Pairs:
    """All pairs of one cell that overlap by at least `min_overlap`.

    Args:
        detections, objects: by ascending cell.
        crowd: bool, for each object.
    """
    boxes = isinstance(detections.shapes, np.ndarray)
    parts = [
        (_box_overlaps if boxes else _mask_overlaps)(detections, objects, crowd, pairs, min_overlap)
        for pairs in _pairs(detections.cell, objects.cell)
    ]
    first, second, overlap = (np.concatenate(column) for column in zip(*parts))
    return Pairs(first, second, overlap)


def _pairs(detection_cells: np.ndarray, object_cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (detection, object) of one cell, some at a time."""
    first = np.searchsorted(object_cells, detection_cells, side="left")
    numbers = np.searchsorted(object_cells, detection_cells, side="right") - first
    ends = np.cumsum(numbers)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(PAIRS_AT_ONCE, total, PAIRS_AT_ONCE), side="left") + 1
    for some in np.split(np.arange(len(detection_cells)), cuts):
        count = numbers[some]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(some, count), np.repeat(first[some], count) + within


def _box_overlaps(
    detections: Entries, objects: Entries, crowd: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d, o = pairs
    one, other = detections.shapes[d], objects.shapes[o]
    shared = _intersection(one, other)
    area = one[:, 2] * one[:, 3]
    union = np.where(crowd[o], area, area + other[:, 2] * other[:, 3] - shared)
    overlap = np.divide(shared, union, out=np.zeros(len(d)), where=shared > 0)
    enough = overlap >= min_overlap
    return d[enough], o[enough], overlap[enough]


def _mask_overlaps(
    detections: Entries, objects: Entries, crowd: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks are compared only where their areas and extents leave it open that they overlap by `min_overlap`."""
    d, o = pairs
    # The areas of the objects' own masks: a file may state others.
    area, other = detections.area[d], _unique(mask_areas, objects.shapes, o)

    def possible(shared: np.ndarray) -> np.ndarray:
        """Whether masks that share so many px, or fewer, may overlap enough."""
        return shared >= min_overlap * np.where(crowd[o], area, area + other - shared)

    near = possible(np.minimum(area, other))
    d, o, area, other = d[near], o[near], area[near], other[near]
    extents = (_unique(_mask_extents, entries.shapes, i) for entries, i in ((detections, d), (objects, o)))
    near = possible(np.minimum(np.minimum(area, other), _intersection(*extents)))
    d, o = d[near], o[near]

    overlap = np.zeros(len(d))
    for some in np.split(np.arange(len(d)), np.flatnonzero(np.diff(detections.cell[d])) + 1):
        rows, row = np.unique(d[some], return_inverse=True)
        columns, column = np.unique(o[some], return_inverse=True)
        if len(some):
            these, those = [detections.shapes[i] for i in rows], [objects.shapes[i] for i in columns]
            overlap[some] = mask_tools.iou(these, those, crowd[columns].tolist())[row, column]
    enough = overlap >= min_overlap
    return d[enough], o[enough], overlap[enough]


def _intersection(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """px^2 that boxes XYWH (n, 4) share, pair by pair."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, 2:] + one[:, :2], other[:, 2:] + other[:, :2])
    sides = high - low
    return np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)


def _unique(compute: Callable[[list], np.ndarray], shapes: Sequence[Any], indices: np.ndarray) -> np.ndarray:
    """`compute` of the shapes at `indices`, each computed once."""
    distinct, places = np.unique(indices, return_inverse=True)
    return compute([shapes[i] for i in distinct])[places]


def mask_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """float64 (n,), px^2 of each compressed RLE."""
    return _in_calls(mask_tools.area, rles).astype(np.float64)


def _mask_extents(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """float64 (n, 4), XYWH px of what holds each mask."""
    return _in_calls(mask_tools.toBbox, rles).reshape(-1, 4)


def _in_calls(function: Callable[[list], np.ndarray], rles: Sequence[dict[str, Any]]) -> np.ndarray:
    parts = [function(rles[i : i + MASKS_IN_A_CALL]) for i in range(0, len(rles), MASKS_IN_A_CALL)]
    return np.concatenate(parts) if parts else np.zeros(0)
