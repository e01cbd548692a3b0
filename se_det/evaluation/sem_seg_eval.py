"""Evaluation of classes of pixels: intersection over union and accuracy (Detectron2's SemSegEvaluator)."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode
from pycocotools import mask as mask_tools

from .. import comm
from ..detection.sem_seg_head import pixel_labels
from ..errors import DataError
from .evaluator import EVALUATORS, new_images
from .pixel_evaluator import PixelEvaluator, Shown, ends

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

SUMMARY = ("mIoU", "fwIoU", "mACC", "pACC")
BORDER = 0.02  # of the image's diagonal: how far from its edge a region's boundary reaches

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemSegOutcome:
    """What an evaluation found, for a report.

    Attributes:
        metrics: of the task.
        confusion: int64 (K + 1, K + 1): pixels by predicted and annotated class; the last is no class.
        images: (the share of its labelled pixels that are right, image id, predicted labels uint8 (H, W)) of the worst
            images and the best, from the worst on.
    """

    dataset: CocoDataset
    metrics: dict[str, float]
    confusion: np.ndarray
    images: list[Shown] = field(default_factory=list)


class SemSegEvaluator(PixelEvaluator):
    """IoU and accuracy of classes of pixels, in percent, over all pixels of the data set that have a class."""

    task = "sem_seg"
    file = "sem_seg_metrics.json"

    def __init__(self, dataset: CocoDataset, output_folder: str | Path | None = None) -> None:
        """
        Args:
            dataset: with `pixel_labels`.
            output_folder: the run's, where `inference/sem_seg_predictions.json` and `inference/sem_seg_metrics.json`
                are written.

        Raises:
            DataError: the data set has no classes of pixels.
        """
        if dataset.pixel_labels is None:
            raise DataError(
                f"{dataset.json_path} has no classes of pixels to evaluate against (TEST.EVALUATORS sem_seg): give "
                "DATASETS.VAL_SEM_SEG or VAL_PANOPTIC_JSON."
            )
        self.names, self.ids = dataset.pixel_labels.names, dataset.pixel_labels.category_ids
        self._positions = {dataset.image(index).id: index for index in range(len(dataset))}
        super().__init__(dataset, output_folder)

    def names_of_metrics(self) -> list[str]:
        return metric_names(self.names)

    def reset(self) -> None:
        super().reset()
        size = len(self.names) + 1
        self._confusion, self._boundaries = (np.zeros((size, size), np.int64) for _ in range(2))
        self._seen: set[Hashable] = set()
        self._predictions: list[dict[str, Any]] = []

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the model's `sem_seg` logits (K, height, width) of samples. An image seen before is passed over.

        Raises:
            DataError: an image that is not in the data set, or its labels cannot be read.
        """
        new = new_images(samples, outputs, known=self._positions, seen=self._seen, source=self.dataset.json_path)
        for image_id, sample, output in new:
            self._seen.add(image_id)
            self._add(image_id, pixel_labels(output["sem_seg"]).cpu().numpy().astype(np.uint8), sample)

    def _add(self, image_id: Hashable, found: np.ndarray, sample: Mapping[str, Any]) -> None:
        classes = len(self.names)
        truth = self.dataset.labels(self._positions[image_id])
        truth = np.where(truth == self.dataset.pixel_labels.ignore, np.uint8(classes), truth)
        counts = confusion(found, truth, classes)
        self._confusion += counts
        if classes < 255:  # erosion knows 256 values
            self._boundaries += confusion(boundary(found), boundary(truth), classes)
        if self.output_folder is not None:
            self._predictions += encode_labels(found, self.ids, str(sample.get("file_name", image_id)))
        right = float(np.trace(counts[:-1, :-1]) / max(counts[:, :-1].sum(), 1))
        self._show(right, image_id, found)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather, score, log and write. Every process must call it.

        Returns:
            On the first process `{"sem_seg": {"mIoU": ..., "fwIoU": ..., "IoU-<class>": ..., ...}}` in percent, nan for
            a class without pixels; elsewhere `{}`.

        Raises:
            CheckpointError: the results cannot be written.
        """
        parts = comm.gather((self._confusion, self._boundaries, self._predictions, self._images, self._seen))
        if not comm.is_main_process():
            return {}
        matrix, boundaries = (sum(part[at] for part in parts) for at in (0, 1))
        missing = len(self._positions.keys() - set().union(*(part[4] for part in parts)))
        if missing:
            logger.warning("%d of %d images were not given to the model.", missing, len(self._positions))
        values = sem_seg_metrics(matrix, self.names, boundaries if len(self.names) < 255 else None)
        documents = {"sem_seg_predictions.json": [entry for part in parts for entry in part[2]]}
        metrics = self._publish(values, SUMMARY, documents)
        images = ends([entry for part in parts for entry in part[3]])
        self.outcome = SemSegOutcome(self.dataset, values, matrix, images)
        return metrics


def metric_names(names: Sequence[str]) -> list[str]:
    """What the evaluation gives, in order."""
    with_boundary = len(names) < 255
    found = ["mIoU", "fwIoU"]
    for name in names:
        found += [f"IoU-{name}", *((f"BoundaryIoU-{name}", f"min(IoU, B-Iou)-{name}") if with_boundary else ())]
    return [*found, "mACC", "pACC", *(f"ACC-{name}" for name in names)]


def confusion(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """int64 (K + 1, K + 1): pixels of each predicted class (rows) and annotated one (columns); the last is none."""
    size = classes + 1
    return np.bincount(size * found.ravel().astype(np.int64) + truth.ravel(), minlength=size * size).reshape(size, size)


def boundary(labels: np.ndarray) -> np.ndarray:
    """Labels less their erosion, as Detectron2 takes a boundary of all classes at once: uint8 (H, W), 0 inside."""
    height, width = labels.shape
    steps = max(1, round(BORDER * math.sqrt(height**2 + width**2)))
    padded = cv2.copyMakeBorder(labels.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return labels - cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]


def sem_seg_metrics(matrix: np.ndarray, names: Sequence[str], boundaries: np.ndarray | None = None) -> dict[str, float]:
    """The numbers of `metric_names`, in percent.

    Args:
        matrix: of `confusion`. Pixels that are annotated with no class count nowhere.
        boundaries: the same of the boundaries.
    """
    right, annotated, iou = _overlap(matrix)
    known = annotated > 0
    accuracy = np.where(known, right / np.maximum(annotated, 1), np.nan)
    iou = np.where(known, iou, np.nan)
    total = max(annotated.sum(), 1)
    values = {"mIoU": _mean(iou), "fwIoU": float(np.nansum(iou * annotated / total))}
    border = None if boundaries is None else _overlap(boundaries)[2]
    for at, name in enumerate(names):
        values[f"IoU-{name}"] = float(iou[at])
        if border is not None:
            values[f"BoundaryIoU-{name}"] = float(border[at])
            values[f"min(IoU, B-Iou)-{name}"] = float(min(iou[at], border[at]))
    values |= {"mACC": _mean(accuracy), "pACC": float(right.sum() / total)}
    values |= {f"ACC-{name}": float(accuracy[at]) for at, name in enumerate(names)}
    return {name: 100 * value for name, value in values.items()}


def _overlap(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) each: pixels that are right, annotated pixels, and IoU, nan without either."""
    counts = matrix[:-1, :-1].astype(np.float64)
    right, annotated, found = counts.diagonal(), counts.sum(0), counts.sum(1)
    union = annotated + found - right
    return right, annotated, np.divide(right, union, out=np.full(len(union), np.nan), where=union > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def encode_labels(labels: np.ndarray, ids: Sequence[int], file_name: str) -> list[dict[str, Any]]:
    """COCO's results of stuff: an RLE for each class that an image has."""
    results = []
    for label in np.unique(labels).tolist():
        rle = mask_tools.encode(np.asfortranarray(labels == label, np.uint8))
        segmentation = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
        results.append({"file_name": file_name, "category_id": int(ids[label]), "segmentation": segmentation})
    return results


@EVALUATORS.register(name="sem_seg")
def sem_seg(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> SemSegEvaluator:
    """Classes of pixels."""
    return SemSegEvaluator(dataset, folder)
