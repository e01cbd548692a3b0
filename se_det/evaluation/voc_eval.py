"""Pascal VOC's AP of boxes, as Detectron2's PascalVOCDetectionEvaluator computes it."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.common.config import CfgNode

from .. import comm
from ..data.named.voc import DIFFICULT, YEAR
from ..errors import ConfigError
from ..files import write_json
from .evaluator import EVALUATORS, new_images
from .ground_truth import without_nan
from .metrics_outcome import MetricsOutcome

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

THRESHOLDS = range(50, 100, 5)  # percent of IoU
NAMES = ("AP", "AP50", "AP75")

logger = logging.getLogger(__name__)


class VocEvaluator:
    """AP50, AP75 and their mean over IoU 0.50 to 0.95, by VOC's rules: sides count their last pixel, scores and corners
    are rounded as in VOC's files, and objects marked difficult count neither way.

    Every process gives its part to `process`; `evaluate` gathers the parts.

    Attributes:
        outcome: of the last evaluation, on the first process.
    """

    def __init__(
        self, dataset: CocoDataset, output_folder: str | Path | None = None, *, eleven_points: bool | None = None
    ) -> None:
        """
        Args:
            dataset: its JSON may mark annotations `voc_difficult` or `difficult`, and say `voc_year` in its `info`.
            output_folder: the run's, where `inference/voc_metrics.json` is written.
            eleven_points: the metric of 2007, the mean of precision at eleven recalls; False is the area under the
                curve; None is what the JSON says, else the area.
        """
        self.dataset = dataset
        self.output_folder = None if output_folder is None else Path(output_folder)
        content = json.loads(Path(dataset.json_path).read_bytes())
        year = (content.get("info") or {}).get(YEAR, 2012)
        self.eleven_points = year == 2007 if eleven_points is None else eleven_points
        self._known = {dataset.image(index).id for index in range(len(dataset))}
        self._truth: list[dict[Hashable, tuple[np.ndarray, np.ndarray]]] = []
        numbers = {number: label for label, number in enumerate(dataset.category_ids)}
        rows: list[dict[Hashable, list]] = [defaultdict(list) for _ in numbers]
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            row = x + 1, y + 1, x + width, y + height
            difficult = bool(annotation.get(DIFFICULT, annotation.get("difficult", 0)) or annotation.get("iscrowd", 0))
            if annotation["image_id"] in self._known:
                rows[numbers[annotation["category_id"]]][annotation["image_id"]].append((*row, difficult))
        for images in rows:
            arrays = {image: np.array(found, np.float64) for image, found in images.items()}
            self._truth.append({image: (found[:, :4], found[:, 4] > 0) for image, found in arrays.items()})
        self.reset()

    @property
    def metrics(self) -> list[str]:
        """The names of what `evaluate` gives, as "task/name"."""
        return [f"bbox/{name}" for name in (*NAMES, *(f"AP50-{label}" for label in self.dataset.category_names))]

    def reset(self) -> None:
        """Forget the detections."""
        self.outcome: MetricsOutcome | None = None
        self._found: dict[Hashable, list[tuple[int, float, list[float]]]] = {}

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the detector's outputs for samples. An image seen before is passed over.

        Raises:
            DataError: an image that is not in the data set.
            ConfigError: classes that the data set does not have.
        """
        new = new_images(samples, outputs, known=self._known, seen=self._found, source=self.dataset.json_path)
        for image_id, _, output in new:
            found = output["instances"]
            boxes = found["pred_boxes"].float().cpu().numpy() + np.array([1, 1, 0, 0], np.float32)
            scores, labels = found["scores"].tolist(), found["pred_classes"].tolist()
            wrong = [label for label in labels if label >= len(self._truth)]
            if wrong:
                raise ConfigError(
                    f"The detector found an object of class {wrong[0]} in image {image_id}, but the data has "
                    f"{len(self._truth)} classes: use weights trained for this data set."
                )
            # As VOC's files of results have them.
            self._found[image_id] = [
                (label, float(f"{score:.3f}"), [float(f"{side:.1f}") for side in box])
                for label, score, box in zip(labels, scores, boxes.tolist())
                if math.isfinite(score) and all(map(math.isfinite, box))
            ]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather, score, log and write. Every process must call it.

        Returns:
            On the first process `{"bbox": {"AP": ..., "AP50": ..., "AP75": ..., "AP50-<class>": ...}}` in percent, nan
            for a class without objects, which is left out of the means; elsewhere `{}`.

        Raises:
            CheckpointError: the results cannot be written.
        """
        found: dict[Hashable, Any] = {}
        for part in comm.gather(self._found):
            found = {**part, **found}
        if not comm.is_main_process():
            return {}
        by_class: list[list[tuple[Hashable, float, list[float]]]] = [[] for _ in self._truth]
        for image_id, detections in found.items():
            for label, score, box in detections:
                by_class[label].append((image_id, score, box))
        table = np.array([
            [100 * average_precision(detections, truth, threshold / 100, eleven_points=self.eleven_points)
             for threshold in THRESHOLDS]
            for detections, truth in zip(by_class, self._truth)
        ])  # fmt: skip
        known = table[~np.isnan(table).any(axis=1)]
        means = known.mean(axis=0) if len(known) else np.full(len(THRESHOLDS), np.nan)
        values = {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[THRESHOLDS.index(75)])}
        values |= {f"AP50-{label}": float(row[0]) for label, row in zip(self.dataset.category_names, table)}
        logger.info(
            "bbox (VOC%s): %s", "2007" if self.eleven_points else "2012",
            ", ".join(f"{name} {values[name]:.3f}" for name in NAMES),
        )  # fmt: skip
        if self.output_folder is not None:
            path = self.output_folder / "inference" / "voc_metrics.json"
            write_json(path, without_nan({"bbox": values}), indent=2)
        self.outcome = MetricsOutcome(f"Pascal VOC's AP, {2007 if self.eleven_points else 2012}", {"bbox": values})
        return {"bbox": values}


def average_precision(
    detections: Sequence[tuple[Hashable, float, Sequence[float]]],
    truth: Mapping[Hashable, tuple[np.ndarray, np.ndarray]],
    threshold: float,
    *,
    eleven_points: bool,
) -> float:
    """AP of a class at an IoU; nan without objects.

    Args:
        detections: (image, score, corners counted from 1, both inside).
        truth: of each image with objects (boxes float64 (n, 4), the same corners; bool (n,) difficult).
        eleven_points: see `VocEvaluator`.
    """
    positives = sum(int((~difficult).sum()) for _, difficult in truth.values())
    if not positives:
        return math.nan
    taken = {image: np.zeros(len(difficult), bool) for image, (_, difficult) in truth.items()}
    order = np.argsort(-np.array([score for _, score, _ in detections]))  # Detectron2's sort, which decides ties
    right, wrong = np.zeros(len(order)), np.zeros(len(order))
    for row, at in enumerate(order.tolist()):
        image, _, box = detections[at]
        boxes, difficult = truth.get(image, (np.zeros((0, 4)), np.zeros(0, bool)))
        overlaps = _overlaps(boxes, np.array(box))
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] <= threshold:
            wrong[row] = 1
        elif not difficult[best]:
            (wrong if taken[image][best] else right)[row] = 1
            taken[image][best] = True
    right, wrong = right.cumsum(), wrong.cumsum()
    recall, precision = right / positives, right / np.maximum(right + wrong, np.finfo(np.float64).eps)
    if eleven_points:
        return sum(float(precision[recall >= r].max(initial=0)) / 11 for r in np.arange(0.0, 1.1, 0.1))
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1]))


def _overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n,): IoU with each, in whole pixels, of which the last is inside."""
    corner = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = np.maximum(corner + 1, 0).prod(axis=1)
    return common / ((box[2:] - box[:2] + 1).prod() + (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) - common)


@EVALUATORS.register(name="pascal_voc")
def pascal_voc(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> VocEvaluator:
    """Boxes, by the metric of the data set's year."""
    return VocEvaluator(dataset, folder)
