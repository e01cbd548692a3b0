"""COCO evaluation of a detector: detections collected per image, gathered over processes, scored and written."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.common.config import CfgNode

from .. import comm
from ..data.tiles import Tiling, most_objects_in_a_window, tiling
from ..detection.registry import model_facts
from ..errors import ConfigError
from ..files import write_json
from ..inference.coco_results import to_coco_results
from .best_f1 import OperatingPoint, best_f1
from .box_proposals import BoxProposalEvaluator
from .coco_metrics import TASKS, coco_scores, detection_limits, task_summary
from .evaluator import EVALUATORS, new_images
from .ground_truth import GroundTruth, without_nan
from .oks import default_sigmas

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

MAX_CLASSES_LOGGED, EXTREMES = 100, 10  # of more classes so many of the best and of the worst are logged
IMAGES_PER_PIECE = 200  # of one process per gather: about 10 MB with masks, far from any time limit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, for a report: see `coco_scores` for `precision`, which is per task, as `metrics` are.

    `results` are COCO results with the file's own ids, in the order of the data set; `thresholds` are the operating
    points of best F1 per class index, of the first task.
    """

    dataset: CocoDataset
    truth: GroundTruth
    results: list[dict[str, Any]]
    metrics: dict[str, dict[str, float]]
    precision: dict[str, np.ndarray]
    thresholds: list[OperatingPoint | None]


class CocoEvaluator:
    """Box, mask and keypoint AP on a data set, as the COCO protocol defines them.

    Every process gives its part to `process`; `evaluate` gathers the parts. One evaluator serves many evaluations,
    with `reset` before each.

    Attributes:
        outcome: of the last evaluation, on the first process; None before it, after `reset`, and elsewhere.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        tasks: Sequence[str] = ("bbox",),
        output_folder: str | Path | None = None,
        *,
        max_dets_per_image: int = 100,
        sigmas: Sequence[float] = (),
    ) -> None:
        """
        Args:
            dataset: the data set; its images are those evaluated on, also those the detector finds nothing in.
            tasks: "bbox", and "segm", "keypoints" or both.
            output_folder: the run's folder, where `inference/coco_instances_results.json` and
                `inference/metrics.json` are written by `evaluate`; None writes nothing.
            max_dets_per_image: detections of a class in an image that AP looks at; 100 is COCO's.
            sigmas: of each keypoint, see `oks`; empty takes COCO's.

        Raises:
            DataError: the ground truth cannot be evaluated against, such as masks on a file without segmentations.
            ConfigError: an unknown task, or a limit that is none.
        """
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks:
            raise ConfigError(f"Evaluation tasks {tuple(tasks)} must be out of {TASKS}.")
        self.dataset = dataset
        self.tasks = tuple(tasks)
        if not set(tasks).isdisjoint(("bbox", "segm")):
            detection_limits(max_dets_per_image)  # refuses one that AP cannot look at
        self.max_dets_per_image = max_dets_per_image
        self.sigmas = self._check_sigmas(sigmas) if "keypoints" in tasks else ()
        self.output_folder = None if output_folder is None else Path(output_folder)
        self._image_ids = [dataset.image(index).id for index in range(len(dataset))]
        self._known_ids = frozenset(self._image_ids)
        # Read before a run starts, so that a file that cannot be evaluated against is refused before hours of
        # training; by the one process that needs it.
        self._truth = self._read_truth() if comm.is_main_process() else None
        self.reset()

    @property
    def metrics(self) -> list[str]:
        """The names of what `evaluate` gives, as "task/name"."""
        return metric_names(self.dataset, self.tasks, self.max_dets_per_image)

    def reset(self) -> None:
        """Forget the detections."""
        self._found: dict[Hashable, list[dict[str, Any]]] = {}
        self._not_finite = 0
        self.outcome: EvaluationResult | None = None

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the detector's `outputs` for `samples`. An image seen before is passed over.

        Raises:
            DataError: an image that is not in the data set.
            ConfigError: classes the data set does not have, or no masks although they are to be evaluated.
        """
        new = new_images(samples, outputs, known=self._known_ids, seen=self._found, source=self.dataset.json_path)
        for image_id, _, output in new:
            self._found[image_id], dropped = to_coco_results(
                output["instances"],
                image_id=image_id,
                category_ids=self.dataset.category_ids,
                masks="segm" in self.tasks,
                keypoints="keypoints" in self.tasks,
            )
            self._not_finite += dropped

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather, score, log and write. Every process must call it.

        Returns:
            On the first process `{"bbox": {"AP": ..., "AP50": ..., "AP-<class name>": ...}, "segm": {...}}` in
            percent, nan where the ground truth holds nothing of a kind (see `coco_metrics`); elsewhere `{}`.

        Raises:
            CheckpointError: the results cannot be written.
        """
        if self._not_finite:
            logger.warning("%d detections were left out: their box or score was not finite.", self._not_finite)
        found = _gather(self._found)
        if not comm.is_main_process():
            return {}
        missing = sum(image_id not in found for image_id in self._image_ids)
        if missing:
            logger.warning(
                "%d of %d images were not given to the detector; they count as images without detections.",
                missing,
                len(self._image_ids),
            )
        # In the order of the data set, however many processes there were.
        results = [result for image_id in self._image_ids for result in found.get(image_id, ())]
        if not results:
            logger.warning("The detector found nothing in %d images: every AP is 0.", len(self._image_ids))
        if self.output_folder is not None:
            write_json(self.output_folder / "inference" / "coco_instances_results.json", results)
        self.outcome = self.score(results)
        metrics = self.outcome.metrics
        for task in self.tasks:
            _log(task, metrics[task], task_summary(task, self.max_dets_per_image), self.output_folder)
        if self.output_folder is not None:
            write_json(self.output_folder / "inference" / "metrics.json", without_nan(metrics), indent=2)
        return metrics

    def score(self, results: list[dict[str, Any]]) -> EvaluationResult:
        """What COCO results with the file's own ids are worth; for one process."""
        if self._truth is None:  # the process group was started after this evaluator was made
            self._truth = self._read_truth()
        metrics, precision, outcomes = {}, {}, {}
        for task in self.tasks:
            metrics[task], precision[task], outcomes[task] = coco_scores(
                self._truth, results, task, max_dets_per_image=self.max_dets_per_image
            )
        thresholds = best_f1(outcomes[self.tasks[0]])
        return EvaluationResult(self.dataset, self._truth, results, metrics, precision, thresholds)

    def _read_truth(self) -> GroundTruth:
        return GroundTruth(
            self.dataset.json_path,
            image_ids=self._image_ids,
            category_ids=self.dataset.category_ids,
            category_names=self.dataset.category_names,
            masks="segm" in self.tasks,
            sigmas=self.sigmas,
        )

    def _check_sigmas(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        count = len(self.dataset.check_keypoints())
        if not sigmas:
            return default_sigmas(count)
        if len(sigmas) != count or not all(sigma > 0 for sigma in sigmas):
            raise ConfigError(
                f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers ({list(sigmas)}), and {self.dataset.json_path} "
                f"declares {count} keypoints: give a number above 0 for each, or none for the default."
            )
        return tuple(sigmas)


def metric_names(dataset: CocoDataset, tasks: Sequence[str], max_dets_per_image: int = 100) -> list[str]:
    """What the COCO protocol gives, as "task/name"."""
    classes = [f"AP-{label}" for label in dataset.category_names]
    return [f"{task}/{name}" for task in tasks for name in (*task_summary(task, max_dets_per_image), *classes)]


@EVALUATORS.register(name="coco")
def coco(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> CocoEvaluator | BoxProposalEvaluator:
    """What of boxes, masks and keypoints the detector gives, or its proposals."""
    given = model_facts(cfg).tasks(cfg)
    if "box_proposals" in given:
        return BoxProposalEvaluator(dataset, folder)
    tasks = tuple(task for task in given if task in TASKS)
    limit = cfg.TEST.MAX_DETS_PER_IMAGE
    for sentence in detection_limit_warnings(dataset, cfg.TEST.DETECTIONS_PER_IMAGE, limit, tiling(cfg.TEST.TILE)):
        logger.warning(sentence)
    return CocoEvaluator(dataset, tasks, folder, max_dets_per_image=limit, sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS)


def detection_limit_warnings(
    dataset: CocoDataset, detections_per_image: int, max_dets_per_image: int, tiles: Tiling | None = None
) -> list[str]:
    """Sentences about objects that cannot be found, and detections that AP does not look at. With `tiles` there may be
    `detections_per_image` of each window."""
    found = []
    if detections_per_image > max_dets_per_image and tiles is None:
        found.append(
            f"TEST.DETECTIONS_PER_IMAGE is {detections_per_image}, and AP looks at {max_dets_per_image} detections of "
            "a class in an image (COCO's rule): set TEST.MAX_DETS_PER_IMAGE to look at more."
        )
    where, most = "an image", dataset.max_objects_per_image()
    if tiles is not None:
        where, most = "a window of an image", most_objects_in_a_window(dataset, tiles)
    most_of_class = dataset.max_objects_per_image(of_class=True)
    if most > detections_per_image:
        found.append(
            f"{dataset.json_path}: {where} has {most} objects, of which TEST.DETECTIONS_PER_IMAGE "
            f"{detections_per_image} are found at most: raise it."
        )
    if most_of_class > max_dets_per_image:
        found.append(
            f"{dataset.json_path}: an image has {most_of_class} objects of a class, and AP looks at "
            f"{max_dets_per_image} detections of it: raise TEST.MAX_DETS_PER_IMAGE."
        )
    return found


def _gather(found: dict[Hashable, list[dict[str, Any]]]) -> dict[Hashable, list[dict[str, Any]]]:
    """All processes' detections per image on rank 0; an image that several processes saw is taken once."""
    items = list(found.items())
    longest = comm.broadcast_object(max(comm.gather(len(items)), default=0))
    merged: dict[Hashable, list[dict[str, Any]]] = {}
    for start in range(0, longest, IMAGES_PER_PIECE):
        for piece in comm.gather(items[start : start + IMAGES_PER_PIECE]):
            for image_id, results in piece:
                merged.setdefault(image_id, results)
    return merged


def _log(task: str, metrics: dict[str, float], summary: Sequence[str], folder: Path | None) -> None:
    logger.info("%s: %s", task, ", ".join(f"{name} {metrics[name]:.3f}" for name in summary))
    classes = {name: value for name, value in metrics.items() if name not in summary}
    shown = list(classes)
    if len(shown) > MAX_CLASSES_LOGGED:
        ranked = sorted((name for name in shown if math.isfinite(classes[name])), key=lambda name: -classes[name])
        shown = list(dict.fromkeys([*ranked[:EXTREMES], *ranked[-EXTREMES:]]))
        place = "" if folder is None else f"; all are in {folder / 'inference' / 'metrics.json'}"
        logger.info(
            "%s: the best and the worst of %d classes, %d of which are in the data%s.",
            task, len(classes), len(ranked), place,
        )  # fmt: skip
    width = max(map(len, shown), default=0)
    for name in shown:
        logger.info("%s: %-*s %7.3f", task, width, name, classes[name])
