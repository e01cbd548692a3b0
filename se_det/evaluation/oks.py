"""Object keypoint similarity (OKS), which stands for the IoU where keypoints are evaluated.

https://cocodataset.org/#keypoints-eval; the values are pycocotools', to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# How far apart people place COCO's 17 keypoints, as shares of the square root of the object's area.
_TENTHS = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
COCO_SIGMAS = tuple(tenth / 10 for tenth in _TENTHS)
MAX_DETECTIONS = 20  # of a class in an image, that are looked at


def default_sigmas(count: int) -> tuple[float, ...]:
    """COCO's for its 17 keypoints; for another number their mean."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else (float(np.mean(COCO_SIGMAS)),) * count


@dataclass(frozen=True)
class KeypointShapes:
    """The keypoints of n detections or objects.

    Attributes:
        points: float64 (n, K, 3) x, y px and v or a score.
        boxes: float64 (n, 4) XYWH px.
        areas: float64 (n,) px^2.
        sigmas: float64 (K,).
    """

    points: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    sigmas: np.ndarray

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]], sigmas: Sequence[float]) -> KeypointShapes:
        """Of COCO results, or annotations of a `GroundTruth`."""
        boxes = np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)
        return cls(
            np.array([item["keypoints"] for item in items], np.float64).reshape(-1, len(sigmas), 3),
            boxes,
            np.array([item.get("area", 0.0) for item in items], np.float64),
            np.asarray(sigmas, np.float64),
        )

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, order: Any) -> KeypointShapes:
        return KeypointShapes(self.points[order], self.boxes[order], self.areas[order], self.sigmas)


def keypoint_similarity(
    detections: KeypointShapes, objects: KeypointShapes, d: np.ndarray, o: np.ndarray
) -> np.ndarray:
    """float64 (p,): the OKS of the pairs of detections `d` and objects `o`: the mean over the object's labelled
    keypoints; without any, how far all are from a box of three times its sides."""
    labelled = objects.points[..., 2] > 0
    counts = labelled.sum(1)
    variances = (detections.sigmas * 2) ** 2
    result = np.zeros(len(d))
    for count in np.unique(counts[o]):  # of one number together: sums are then rounded as pycocotools' are
        at = np.flatnonzero(counts[o] == count)
        found, thing = detections.points[d[at], :, :2], o[at]
        if count:
            away = found - objects.points[thing, :, :2]
        else:
            box = objects.boxes[thing, None]
            low, high = box[..., :2] - box[..., 2:], box[..., :2] + box[..., 2:] * 2
            away = np.maximum(0, low - found) + np.maximum(0, found - high)
        error = (away[..., 0] ** 2 + away[..., 1] ** 2) / variances / (objects.areas[thing, None] + np.spacing(1)) / 2
        if count:
            error = error[labelled[thing]].reshape(-1, count)
        result[at] = np.exp(-error).sum(1) / error.shape[1]
    return result
