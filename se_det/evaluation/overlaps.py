"""How detections and ground truth overlap, image by image: what error kinds, confusion and ranking start from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from .ground_truth import GroundTruth, is_ignored

DETECTIONS_PER_CLASS = 100  # of an image, as the COCO protocol takes
ALMOST_ONE = 1 - 1e-10  # the protocol's upper bound of a threshold, so that rounding loses no perfect match


@dataclass(frozen=True)
class ImageOverlaps:
    """One image: d detections, the surest first, and g annotated objects.

    Attributes:
        image_id: of the annotation file.
        scores: float64 (d,).
        classes: int64 (d,), class indices.
        truth_classes: int64 (g,).
        crowd: bool (g,).
        iou: float64 (d, g); for a crowd the part of the detection that lies in it.
    """

    image_id: Hashable
    scores: np.ndarray
    classes: np.ndarray
    truth_classes: np.ndarray
    crowd: np.ndarray
    iou: np.ndarray


def image_overlaps(truth: GroundTruth, results: Iterable[dict[str, Any]], task: str) -> list[ImageOverlaps]:
    """The overlaps of every image of `truth`, in its order.

    Args:
        truth: the ground truth, with masks for task "segm".
        results: COCO results with the file's own ids, as `coco_metrics` takes them.
        task: "bbox" or "segm".
    """
    key = {"bbox": "bbox", "segm": "segmentation"}[task]
    per_image: dict[Hashable, list[dict[str, Any]]] = {}
    for result in results:
        per_image.setdefault(result["image_id"], []).append(result)
    return [
        _overlaps(image_id, per_image.get(image_id, []), truth.annotations_of(image_id), truth, key)
        for image_id in truth.image_numbers
    ]


def match(overlaps: ImageOverlaps, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """What each detection finds by the COCO protocol: the free object of its class that it overlaps most.

    Returns:
        int64 (d,), the object found or -1, and bool (d,), which of the others are not counted as they lie in a crowd.
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
    """The detections of at least this score alone."""
    kept = overlaps.scores >= score
    return ImageOverlaps(
        image_id=overlaps.image_id,
        scores=overlaps.scores[kept],
        classes=overlaps.classes[kept],
        truth_classes=overlaps.truth_classes,
        crowd=overlaps.crowd,
        iou=overlaps.iou[kept],
    )


def _overlaps(
    image_id: Hashable, results: list[dict[str, Any]], annotations: list[dict[str, Any]], truth: GroundTruth, key: str
) -> ImageOverlaps:
    scores = np.array([result["score"] for result in results], np.float64)
    classes = np.array([truth.category_numbers[result["category_id"]] - 1 for result in results], np.int64)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    taken: dict[int, int] = {}
    for index in order.tolist():
        taken[classes[index]] = taken.get(classes[index], 0) + 1
        if taken[classes[index]] <= DETECTIONS_PER_CLASS:
            kept.append(index)
    task = "bbox" if key == "bbox" else "segm"
    crowd = [int(is_ignored(annotation, task)) for annotation in annotations]
    iou = np.zeros((len(kept), len(annotations)))
    if kept and annotations:
        shapes = [results[index][key] for index in kept], [annotation[key] for annotation in annotations]
        if key == "bbox":
            shapes = tuple(np.array(boxes, np.float64) for boxes in shapes)
        iou = np.asarray(mask_tools.iou(*shapes, crowd))
    return ImageOverlaps(
        image_id=image_id,
        scores=scores[kept],
        classes=classes[kept],
        truth_classes=np.array([annotation["category_id"] - 1 for annotation in annotations], np.int64),
        crowd=np.array(crowd, bool),
        iou=iou,
    )
