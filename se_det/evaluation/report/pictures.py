"""Images of the report, annotated and detected side by side, as JPEG data URIs."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_tools

from ...data.regions import read_at_any_size
from ...errors import DataError
from ...inference.drawing import draw_detections
from ..coco_eval import EvaluationResult
from ..ranking import ImageScore

LONG_SIDE = 560  # px: two beside each other fill a desktop page
JPEG_QUALITY = 80
COUNT = 4  # images drawn after each evaluation


class Pictures:
    """Draws images of one outcome; the detections are sorted by image once."""

    def __init__(self, outcome: EvaluationResult) -> None:
        self._outcome = outcome
        self._positions = {outcome.dataset.image(i).id: i for i in range(len(outcome.dataset))}
        self._found: dict[Hashable, list[dict[str, Any]]] = {}
        for result in outcome.results:
            self._found.setdefault(result["image_id"], []).append(result)

    def pair(self, score: ImageScore, *, score_threshold: float) -> tuple[str, str, str]:
        """The file's name, and data URIs of the truth and of the detections from `score_threshold` on.

        Raises:
            DataError: the file cannot be read (any more).
        """
        name, truth, found = self._drawn(score.image_id, score_threshold)
        return name, data_uri(truth), data_uri(found)

    def detections(self, image_id: Hashable, *, score_threshold: float) -> tuple[str, np.ndarray]:
        """The file's name, and the image with the detections from `score_threshold` on, uint8 BGR.

        Raises:
            DataError: the file cannot be read (any more).
        """
        name, _, found = self._drawn(image_id, score_threshold)
        return name, found

    def _drawn(self, image_id: Hashable, score_threshold: float) -> tuple[str, np.ndarray, np.ndarray]:
        outcome = self._outcome
        info = outcome.dataset.image(self._positions[image_id])
        pixels = read_at_any_size(info.path)
        factor = LONG_SIDE / max(pixels.shape[:2])
        size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
        shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        scale = np.array([size[0] / info.width, size[1] / info.height] * 2)
        truth = outcome.truth.annotations_of(image_id)
        numbers = outcome.truth.category_numbers
        found = [r for r in self._found.get(image_id, []) if r["score"] >= score_threshold]
        labels = outcome.truth.class_labels
        sides = (
            _instances([(a["category_id"] - 1, None, a) for a in truth], size, scale),
            _instances([(numbers[r["category_id"]] - 1, r["score"], r) for r in found], size, scale),
        )
        layout = outcome.dataset.keypoints
        bones = () if layout is None else layout.skeleton
        drawn = (draw_detections(shown, side, labels, score_threshold=0, skeleton=bones) for side in sides)
        return (str(info.path.relative_to(outcome.dataset.images_folder.absolute())), *drawn)


def detections_drawn(outcome: EvaluationResult, *, count: int = COUNT, score_threshold: float = 0.5) -> Iterator[
    tuple[str, np.ndarray]
]:  # fmt: skip
    """Names of the data set's first images and what was found in them, drawn, uint8 BGR; one that cannot be read (any
    more) is left out."""
    pictures = Pictures(outcome)
    for index in range(min(count, len(outcome.dataset))):
        with suppress(DataError):
            yield pictures.detections(outcome.dataset.image(index).id, score_threshold=score_threshold)


def _instances(
    things: list[tuple[int, float | None, Mapping[str, Any]]], size: tuple[int, int], scale: np.ndarray
) -> dict[str, np.ndarray]:
    """What `draw_detections` takes, of (class, score, COCO annotation or result)."""
    boxes = np.array([thing["bbox"] for *_, thing in things], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = {"pred_boxes": boxes * scale, "pred_classes": np.array([index for index, *_ in things], int)}
    if all(score is not None for _, score, _ in things):
        instances["scores"] = np.array([score for _, score, _ in things], np.float64)
    if things and all(thing.get("keypoints") for *_, thing in things):
        points = np.array([thing["keypoints"] for *_, thing in things], np.float64).reshape(len(things), -1, 3)
        instances["pred_keypoints"] = (points + np.array([0.5, 0.5, 0])) * [*scale[:2], 1]
    if things and all(thing.get("segmentation") for *_, thing in things):
        masks = (mask_tools.decode(thing["segmentation"]) for *_, thing in things)
        instances["pred_masks"] = np.stack([cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in masks])
    return instances


def data_uri(pixels: np.ndarray) -> str:
    """An image uint8 (H, W, 3), BGR, as what `src` takes."""
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
