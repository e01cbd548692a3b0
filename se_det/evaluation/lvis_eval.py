"""LVIS's evaluation (Gupta et al., arXiv 1908.03195, section 4), as lvis-api computes it: in an image only categories
count whose presence or absence is known, and what is found of one that is not annotated exhaustively is no error."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.common.config import CfgNode

from ..detection.registry import model_facts
from ..errors import DataError
from .best_f1 import best_f1
from .coco_eval import CocoEvaluator, EvaluationResult
from .coco_protocol import LIMITS, THRESHOLDS, Accumulated, accumulate
from .evaluator import EVALUATORS
from .overlaps import Entries, mask_areas, shapes_of

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

MAX_DETECTIONS = 300  # of an image, of all categories together
GROUPS = {"r": "rare", "c": "common", "f": "frequent"}  # by the number of training images of a category
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", *(f"AP{group}" for group in GROUPS))

logger = logging.getLogger(__name__)


class LvisEvaluator(CocoEvaluator):
    """Box and mask AP on LVIS: see `CocoEvaluator`."""

    def __init__(
        self, dataset: CocoDataset, tasks: Sequence[str] = ("bbox", "segm"), output_folder: str | Path | None = None, *,
        max_dets_per_image: int = MAX_DETECTIONS,
    ) -> None:  # fmt: skip
        """
        Args:
            dataset, tasks, output_folder: of `CocoEvaluator`.
            max_dets_per_image: detections in an image that are looked at, of all categories together.

        Raises:
            DataError: the JSON lacks what LVIS says of its images and categories.
        """
        super().__init__(dataset, tasks, output_folder)
        self.summary, self.max_dets_per_image = NAMES, max_dets_per_image
        self._facts = _Facts(dataset) if self._truth is not None else None

    @property
    def metrics(self) -> list[str]:
        """The names of what `evaluate` gives, as "task/name"."""
        names = (*NAMES, *(f"AP-{label}" for label in self.dataset.category_names))
        return [f"{task}/{name}" for task in self.tasks for name in names]

    def score(self, results: list[dict[str, Any]]) -> EvaluationResult:
        """What COCO results with the file's own ids are worth; for one process."""
        if self._truth is None:
            self._truth = self._read_truth()
        if self._facts is None:
            self._facts = _Facts(self.dataset)
        kept = self._facts.counted(_limited(results, self.max_dets_per_image))
        metrics, precision, outcomes = {}, {}, {}
        for task in self.tasks:
            found = self._accumulated(kept, task)
            metrics[task] = lvis_metrics(found.precision, self._truth.class_labels, self._facts.groups)
            precision[task], outcomes[task] = found.precision[..., 0], found.outcomes
        return EvaluationResult(
            self.dataset, self._truth, results, metrics, precision, best_f1(outcomes[self.tasks[0]])
        )

    def _accumulated(self, results: list[dict[str, Any]], task: str) -> Accumulated:
        truth = self._truth
        images = len(truth.image_numbers)
        image = np.array([truth.image_numbers[r["image_id"]] for r in results], np.int64) - 1
        label = np.array([truth.category_numbers[r["category_id"]] for r in results], np.int64) - 1
        shapes = shapes_of(results, task)
        area = mask_areas(shapes) if task == "segm" else shapes[:, 2] * shapes[:, 3]
        annotations = truth.annotations
        cells = np.array([(a["category_id"] - 1) * images + a["image_id"] - 1 for a in annotations], np.int64)
        areas = np.array([a["area"] for a in annotations], np.float64)
        return accumulate(
            Entries(cells, areas, shapes_of(annotations, task)),
            np.zeros(len(annotations), bool),
            Entries(label * images + image, area, shapes),
            np.array([r["score"] for r in results], np.float64),
            images=images,
            classes=len(truth.class_labels),
            limits=(*LIMITS[:-1], self.max_dets_per_image),
            lenient=np.array([self._facts.lenient(r) for r in results], bool),
        )


class _Facts:
    """What LVIS's JSON says besides COCO's."""

    def __init__(self, dataset: CocoDataset) -> None:
        path = dataset.json_path
        content = json.loads(Path(path).read_bytes())
        self.groups: list[str] = []
        frequency = {c["id"]: c.get("frequency") for c in content["categories"]}
        for number in dataset.category_ids:
            if frequency[number] not in GROUPS:
                raise DataError(
                    f"{path}: category {number} has frequency {frequency[number]!r}; LVIS's evaluation needs r (rare), "
                    "c (common) or f (frequent). Evaluate other data by COCO's rules: TEST.EVALUATORS \"['coco']\"."
                )
            self.groups.append(frequency[number])
        self._negative, self._open = {}, {}
        for image in content["images"]:
            for key, into in (("neg_category_ids", self._negative), ("not_exhaustive_category_ids", self._open)):
                if not isinstance(image.get(key), list):
                    raise DataError(
                        f"{path}: image {image['id']!r} has no {key}, which LVIS's evaluation needs. Evaluate other "
                        "data by COCO's rules: TEST.EVALUATORS \"['coco']\"."
                    )
                into[image["id"]] = frozenset(image[key])
        self._positive: dict[Any, set[int]] = defaultdict(set)
        for annotation in content["annotations"]:
            self._positive[annotation["image_id"]].add(annotation["category_id"])

    def counted(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of a category that is known to be in their image, or known not to be."""
        return [
            r for r in results
            if r["category_id"] in self._negative[r["image_id"]] or r["category_id"] in self._positive[r["image_id"]]
        ]  # fmt: skip

    def lenient(self, result: dict[str, Any]) -> bool:
        """Whether a detection that matches nothing is no error."""
        return result["category_id"] in self._open[result["image_id"]]


def _limited(results: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The best of each image, of all categories together."""
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    kept = []
    for found in by_image.values():
        kept += found if len(found) <= most else sorted(found, key=lambda r: r["score"], reverse=True)[:most]
    return kept


def lvis_metrics(precision: np.ndarray, labels: Sequence[str], groups: Sequence[str]) -> dict[str, float]:
    """The numbers in percent, nan where there is nothing of a kind.

    Args:
        precision: of `accumulate`, (thresholds, recalls, classes, sizes).
        groups: r, c or f of each class.
    """
    of_group = {group: [at for at, own in enumerate(groups) if own == group] for group in GROUPS}
    thresholds = THRESHOLDS.tolist()
    parts = [
        precision[..., 0], precision[0, ..., 0], precision[thresholds.index(0.75), ..., 0],
        *(precision[..., size] for size in (1, 2, 3)), *(precision[:, :, of_group[group], 0] for group in GROUPS),
    ]  # fmt: skip
    values = {name: _mean(part) for name, part in zip(NAMES, parts)}
    return values | {f"AP-{label}": _mean(precision[:, :, at, 0]) for at, label in enumerate(labels)}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) * 100 if known.size else float("nan")


@EVALUATORS.register(name="lvis")
def lvis(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> LvisEvaluator:
    """Boxes and, with MODEL.MASK_ON, masks; 300 detections per image where TEST.MAX_DETS_PER_IMAGE is COCO's 100."""
    limit = cfg.TEST.MAX_DETS_PER_IMAGE
    limit = MAX_DETECTIONS if limit == LIMITS[-1] else limit
    if limit > cfg.TEST.DETECTIONS_PER_IMAGE:
        logger.warning(
            "TEST.DETECTIONS_PER_IMAGE is %d, and LVIS looks at %d detections in an image: raise it.",
            cfg.TEST.DETECTIONS_PER_IMAGE, limit,
        )  # fmt: skip
    tasks = tuple(task for task in model_facts(cfg).tasks(cfg) if task in ("bbox", "segm"))
    return LvisEvaluator(dataset, tasks, folder, max_dets_per_image=limit)
