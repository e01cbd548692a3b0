"""IoU of detections and ground-truth objects, over a whole data set at once.

A detection is compared with the objects of its cell: of its class and image for the COCO protocol, of its image for
error types, confusion matrix and ranking, which look across classes. The values are those of pycocotools, bit for bit:
intersection over union, or over the detection's area if the object is a crowd.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from .ground_truth import GroundTruth, is_ignored
from .oks import KeypointShapes, keypoint_similarity

DETECTIONS_PER_CLASS = 100  # of an image, as the COCO protocol takes
ALMOST_ONE = 1 - 1e-10  # the protocol's upper bound of a threshold, so that rounding loses no perfect match
PAIRS_AT_ONCE = 2**20  # bounds the memory, about 100 MB
MASKS_IN_A_CALL = 255  # pycocotools 2.0.11 counts those of `area` in 8 bits

# float64 (n, 4) XYWH px boxes, n compressed RLEs, or keypoints, whose IoU is their similarity (OKS)
Shapes = np.ndarray | Sequence[dict[str, Any]] | KeypointShapes


@dataclass(frozen=True)
class Entries:
    """Detections or ground-truth objects.

    Attributes:
        cell: int64 (n,), which of them are compared: equal for those that are.
        area: float64 (n,) px^2.
        shapes: boxes or masks.
    """

    cell: np.ndarray
    area: np.ndarray
    shapes: Shapes

    def take(self, order: np.ndarray) -> Entries:
        """The entries at these indices."""
        return Entries(self.cell[order], self.area[order], _take(self.shapes, order))


@dataclass(frozen=True)
class Pairs:
    """Indices of a detection and an object of the same cell, and their IoU; sorted by detection."""

    detection: np.ndarray
    object: np.ndarray
    overlap: np.ndarray


def find_overlaps(detections: Entries, objects: Entries, crowd: np.ndarray, min_overlap: float) -> Pairs:
    """Find all pairs of a cell whose IoU is at least `min_overlap`.

    Args:
        detections, objects: sorted by cell.
        crowd: bool, for each object.
        min_overlap: above 0; masks that cannot overlap so much are not compared.
    """
    boxes, points = (isinstance(detections.shapes, kind) for kind in (np.ndarray, KeypointShapes))
    parts = []
    for d, o in _pairs(detections.cell, objects.cell):
        if not boxes and not points:
            d, o = _near_masks(detections, objects, crowd, d, o, min_overlap)
        compare = _box_overlaps if boxes else _keypoint_overlaps if points else _mask_overlaps
        overlap = compare(detections, objects, crowd, d, o)
        enough = overlap >= min_overlap
        parts.append((d[enough], o[enough], overlap[enough]))
    return Pairs(*(np.concatenate(column) for column in zip(*parts)))


@dataclass(frozen=True)
class ImageOverlaps:
    """One image: d detections, sorted by falling score, and g ground-truth objects.

    Attributes:
        image_id: the id in the annotation file.
        scores: float64 (d,).
        classes: int64 (d,), class indices.
        truth_classes: int64 (g,).
        crowd: bool (g,).
        iou: float64 (d, g); for a crowd the share of the detection that lies in it.
    """

    image_id: Hashable
    scores: np.ndarray
    classes: np.ndarray
    truth_classes: np.ndarray
    crowd: np.ndarray
    iou: np.ndarray


def image_overlaps(truth: GroundTruth, results: Iterable[dict[str, Any]], task: str) -> list[ImageOverlaps]:
    """Compute the IoU of all detections and objects of each image, in the order of `truth`.

    Args:
        truth: the ground truth, with masks for task "segm".
        results: COCO results with the file's own ids, as `coco_metrics` takes them.
        task: "bbox" or "segm".
    """
    results, annotations, count = list(results), truth.annotations, len(truth.image_numbers)
    score = np.array([result["score"] for result in results], np.float64)
    label = np.array([truth.category_numbers[result["category_id"]] for result in results], np.int64) - 1
    image = np.array([truth.image_numbers[result["image_id"]] for result in results], np.int64) - 1
    order, rank = rank_in_cells(label * count + image, score)
    order = np.sort(order[rank < DETECTIONS_PER_CLASS])
    order = order[np.lexsort((-score[order], image[order]))]
    image, label, score = image[order], label[order], score[order]

    of_object = np.array([a["image_id"] for a in annotations], np.int64) - 1
    by_image = np.argsort(of_object, kind="stable")
    of_object = of_object[by_image]
    true_label = np.array([a["category_id"] for a in annotations], np.int64)[by_image] - 1
    crowd = np.array([is_ignored(a, task) for a in annotations], bool)[by_image]
    shapes = _take(shapes_of(results, task, truth.sigmas), order)
    true_shapes = _take(shapes_of(annotations, task, truth.sigmas), by_image)

    places = np.arange(count + 1)
    ends, true_ends = np.searchsorted(image, places).tolist(), np.searchsorted(of_object, places).tolist()
    images = []
    for i, image_id in enumerate(truth.image_numbers):
        d, o = slice(*ends[i : i + 2]), slice(*true_ends[i : i + 2])
        iou = _table(shapes[d], true_shapes[o], crowd[o])
        images.append(ImageOverlaps(image_id, score[d], label[d], true_label[o], crowd[o], iou))
    return images


def match(overlaps: ImageOverlaps, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Match detections as the COCO protocol does: each to the unmatched object of its class with the highest IoU.

    Returns:
        int64 (d,), the index of the matched object or -1; and bool (d,), which unmatched detections are ignored because
        they lie in a crowd.
    """
    found = np.full(len(overlaps.scores), -1)
    ignored = np.zeros(len(overlaps.scores), bool)
    near = same_class(overlaps) & (overlaps.iou >= min(threshold, ALMOST_ONE))
    free = ~overlaps.crowd
    for index in np.flatnonzero(near.any(axis=1)):
        candidates = np.flatnonzero(near[index] & free)[::-1]  # of equal overlaps the protocol takes the last
        if len(candidates):
            found[index] = candidates[np.argmax(overlaps.iou[index, candidates])]
            free[found[index]] = False
        else:
            ignored[index] = (near[index] & overlaps.crowd).any()
    return found, ignored


def same_class(overlaps: ImageOverlaps) -> np.ndarray:
    """bool (d, g): whether a detection and an object are of one class."""
    return overlaps.classes[:, None] == overlaps.truth_classes[None, :]


def above_score(overlaps: ImageOverlaps, score: float) -> ImageOverlaps:
    """Keep the detections whose score is at least `score`."""
    kept = overlaps.scores >= score
    return replace(overlaps, scores=overlaps.scores[kept], classes=overlaps.classes[kept], iou=overlaps.iou[kept])


def rank_in_cells(cell: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order by cell and then by falling score, and for each entry in that order its rank in the cell, from 0."""
    order = np.lexsort((-score, cell))
    first = np.flatnonzero(np.diff(cell[order], prepend=-1))
    return order, np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))


def shapes_of(items: Sequence[dict[str, Any]], task: str, sigmas: Sequence[float] = ()) -> Shapes:
    """The boxes (task "bbox"), masks ("segm") or "keypoints" of COCO results, or of the annotations of a `GroundTruth`,
    whose `sigmas` keypoints are compared by."""
    if task == "keypoints":
        return KeypointShapes.of(items, sigmas)
    if task == "segm":
        return [item["segmentation"] for item in items]
    return np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)


def mask_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """float64 (n,), px^2 of each compressed RLE."""
    return _in_calls(mask_tools.area, rles).astype(np.float64)


def _take(shapes: Shapes, order: np.ndarray) -> Shapes:
    return shapes[order] if isinstance(shapes, (np.ndarray, KeypointShapes)) else [shapes[i] for i in order]


def _pairs(detection_cells: np.ndarray, object_cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (detection, object) of a cell, in chunks of about `PAIRS_AT_ONCE`."""
    first = np.searchsorted(object_cells, detection_cells, side="left")
    numbers = np.searchsorted(object_cells, detection_cells, side="right") - first
    ends = np.cumsum(numbers)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(PAIRS_AT_ONCE, total, PAIRS_AT_ONCE), side="left") + 1
    for some in np.split(np.arange(len(detection_cells)), cuts):
        count = numbers[some]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(some, count), np.repeat(first[some], count) + within


def _box_overlaps(detections: Entries, objects: Entries, crowd: np.ndarray, d: np.ndarray, o: np.ndarray) -> np.ndarray:
    """IoU of the pairs of detections `d` and objects `o`."""
    one, other = detections.shapes.take(d, axis=0), objects.shapes.take(o, axis=0)
    shared = _intersection(one, other)
    area = one[:, 2] * one[:, 3]
    union = np.where(crowd[o], area, area + other[:, 2] * other[:, 3] - shared)
    return np.divide(shared, union, out=np.zeros(len(d)), where=shared > 0)


def _keypoint_overlaps(
    detections: Entries, objects: Entries, crowd: np.ndarray, d: np.ndarray, o: np.ndarray
) -> np.ndarray:
    """Likewise for keypoints, whatever is a crowd."""
    return keypoint_similarity(detections.shapes, objects.shapes, d, o)


def _mask_overlaps(
    detections: Entries, objects: Entries, crowd: np.ndarray, d: np.ndarray, o: np.ndarray
) -> np.ndarray:
    """Likewise for masks, cell by cell."""
    overlap = np.zeros(len(d))
    for some in np.split(np.arange(len(d)), np.flatnonzero(np.diff(detections.cell[d])) + 1):
        rows, columns = np.unique(d[some]), np.unique(o[some])
        table = _table(_take(detections.shapes, rows), _take(objects.shapes, columns), crowd[columns])
        overlap[some] = table[np.searchsorted(rows, d[some]), np.searchsorted(columns, o[some])]
    return overlap


def _table(shapes: Shapes, true_shapes: Shapes, crowd: np.ndarray) -> np.ndarray:
    """IoU of every detection with every object, float64 (d, g)."""
    if isinstance(shapes, KeypointShapes):
        d, o = np.divmod(np.arange(len(shapes) * len(true_shapes)), max(len(true_shapes), 1))
        return keypoint_similarity(shapes, true_shapes, d, o).reshape(len(shapes), len(true_shapes))
    if len(shapes) and len(true_shapes):
        return np.asarray(mask_tools.iou(shapes, true_shapes, crowd.tolist()))
    return np.zeros((len(shapes), len(true_shapes)))


def _near_masks(
    detections: Entries, objects: Entries, crowd: np.ndarray, d: np.ndarray, o: np.ndarray, min_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Drop the pairs whose IoU cannot reach `min_overlap`, judging by their areas and bounding boxes."""
    # The areas of the objects' own masks: a file may state others.
    area, other = detections.area[d], _unique(mask_areas, objects.shapes, o)

    def possible(shared: np.ndarray) -> np.ndarray:
        """Whether masks that share at most so many px can reach `min_overlap`."""
        return shared >= min_overlap * np.where(crowd[o], area, area + other - shared)

    near = possible(np.minimum(area, other))
    d, o, area, other = d[near], o[near], area[near], other[near]
    extents = (_unique(_mask_extents, entries.shapes, i) for entries, i in ((detections, d), (objects, o)))
    near = possible(np.minimum(np.minimum(area, other), _intersection(*extents)))
    return d[near], o[near]


def _intersection(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection in px^2 of the pairs of XYWH boxes (n, 4)."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, 2:] + one[:, :2], other[:, 2:] + other[:, :2])
    sides = high - low
    return np.where((sides[:, 0] > 0) & (sides[:, 1] > 0), sides[:, 0] * sides[:, 1], 0.0)


def _unique(compute: Callable[[list], np.ndarray], shapes: Sequence[Any], indices: np.ndarray) -> np.ndarray:
    """`compute` of the shapes at `indices`, once for each distinct index."""
    distinct, places = np.unique(indices, return_inverse=True)
    return compute([shapes[i] for i in distinct])[places]


def _mask_extents(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Bounding boxes of masks, float64 (n, 4), XYWH px."""
    return _in_calls(mask_tools.toBbox, rles).reshape(-1, 4)


def _in_calls(function: Callable[[list], np.ndarray], rles: Sequence[dict[str, Any]]) -> np.ndarray:
    parts = [function(rles[i : i + MASKS_IN_A_CALL]) for i in range(0, len(rles), MASKS_IN_A_CALL)]
    return np.concatenate(parts) if parts else np.zeros(0)
