"""The COCO protocol's numbers for a list of COCO results; see `coco_protocol` for the rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ConfigError
from .coco_protocol import LIMITS, THRESHOLDS, Outcomes, accumulate
from .ground_truth import GroundTruth, is_ignored
from .oks import MAX_DETECTIONS
from .overlaps import Entries, mask_areas, shapes_of

TASKS = ("bbox", "segm", "keypoints")
# The protocol's ten numbers for keypoints: there are no small objects, and one limit of detections.
KEYPOINT_SUMMARY = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def summary_names(max_dets_per_image: int = LIMITS[-1]) -> tuple[str, ...]:
    """The names of the protocol's twelve numbers in its own order, with that limit of detections."""
    limits = [f"AR{limit}" for limit in detection_limits(max_dets_per_image)]
    return ("AP", "AP50", "AP75", "APs", "APm", "APl", *limits, "ARs", "ARm", "ARl")


def detection_limits(max_dets_per_image: int) -> tuple[int, ...]:
    """COCOeval's `maxDets` with another last one.

    Raises:
        ConfigError: it is not above the others.
    """
    if max_dets_per_image <= LIMITS[-2]:
        raise ConfigError(
            f"TEST.MAX_DETS_PER_IMAGE must be above {LIMITS[-2]}, of which there is a number anyway, got "
            f"{max_dets_per_image}. COCO's is {LIMITS[-1]}."
        )
    return (*LIMITS[:-1], max_dets_per_image)


def task_summary(task: str, max_dets_per_image: int = LIMITS[-1]) -> tuple[str, ...]:
    """The names of a task's numbers; of keypoints always `oks.MAX_DETECTIONS` detections are looked at."""
    return KEYPOINT_SUMMARY if task == "keypoints" else summary_names(max_dets_per_image)


SUMMARY = summary_names()


def coco_metrics(
    truth: GroundTruth, results: Iterable[dict[str, Any]], task: str, *, max_dets_per_image: int = LIMITS[-1]
) -> dict[str, float]:
    """Average precision and recall of `results`, in percent.

    Args:
        truth: what to compare with.
        results: COCO results with the file's own image and category ids: `bbox` (XYWH, px) for task "bbox",
            `segmentation` (RLE) for "segm", `bbox` and `keypoints` for "keypoints", and `score`. They are not changed.
        task: "bbox", "segm" or "keypoints".
        max_dets_per_image: detections of a class in an image that are looked at; COCO's 100 by default.

    Returns:
        The numbers of `task_summary`, then `AP-<class name>` for every class, nan where the ground truth holds
        nothing of the kind. APs, APm, APl and ARs, ARm, ARl are for small, medium and large objects (areas below
        32^2, up to 96^2, and above); AR1 and AR10 allow as many detections of a class per image, the others 100.

    Raises:
        ValueError: an unknown task.
    """
    return coco_scores(truth, results, task, max_dets_per_image=max_dets_per_image)[0]


def coco_scores(
    truth: GroundTruth, results: Iterable[dict[str, Any]], task: str, *, max_dets_per_image: int = LIMITS[-1]
) -> tuple[dict[str, float], np.ndarray, Outcomes]:
    """The metrics of `coco_metrics`, what they are means of, and what became of each detection.

    Returns:
        The metrics; the precision (10 IoU thresholds, 101 recalls, classes) for objects of every size with 100
        detections per class and image, -1 for a class without objects; and the outcomes at IoU 0.5.

    Raises:
        ValueError: an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"The task '{task}' is unknown; it must be one of {', '.join(TASKS)}.")
    found = list(results)
    annotations = truth.annotations
    images, classes = len(truth.image_numbers), len(truth.class_labels)
    score = np.array([result["score"] for result in found], np.float64)
    # Numbers start at 1.
    image = np.array([truth.image_numbers[result["image_id"]] for result in found], np.int64) - 1
    label = np.array([truth.category_numbers[result["category_id"]] for result in found], np.int64) - 1
    cells = [(a["category_id"] - 1) * images + a["image_id"] - 1 for a in annotations]
    # The size class of a detection is that of its mask for masks and of its box for boxes.
    shapes = shapes_of(found, task, truth.sigmas)
    points = task == "keypoints"
    area = mask_areas(shapes) if task == "segm" else (shapes.boxes if points else shapes)[:, 2:].prod(1)
    accumulated = accumulate(
        Entries(
            np.array(cells, np.int64),
            np.array([a["area"] for a in annotations], np.float64),
            shapes_of(annotations, task, truth.sigmas),
        ),
        np.array([a["iscrowd"] if points else is_ignored(a, task) for a in annotations], bool),
        Entries(label * images + image, area, shapes),
        score,
        images=images,
        classes=classes,
        limits=(MAX_DETECTIONS,) if points else detection_limits(max_dets_per_image),
        unlabelled=np.array([a["num_keypoints"] == 0 for a in annotations], bool) if points else None,
    )
    precision, recall = accumulated.precision, accumulated.recall
    strict = THRESHOLDS.tolist().index(0.75)
    means = [precision[..., 0], precision[0, ..., 0], precision[strict, ..., 0]]
    if points:
        means += [precision[..., 2], precision[..., 3], recall[:, :, 0, 0], recall[0, :, 0, 0], recall[strict, :, 0, 0],
                  recall[:, :, 2, 0], recall[:, :, 3, 0]]  # fmt: skip
    else:
        means += [
            *(precision[..., size] for size in (1, 2, 3)),
            *(recall[:, :, 0, limit] for limit in range(len(LIMITS))),
            *(recall[:, :, size, -1] for size in (1, 2, 3)),
        ]
    metrics = {name: _mean(values) for name, values in zip(task_summary(task, max_dets_per_image), means, strict=True)}
    precision = precision[..., 0]
    for index, label in enumerate(truth.class_labels):
        metrics[f"AP-{label}"] = _mean(precision[:, :, index])
    return metrics, precision, accumulated.outcomes


def _mean(values: np.ndarray) -> float:
    """In percent, of what there is to find; -1 says that there is nothing."""
    known = values[values > -1]
    return float(known.mean()) * 100 if known.size else float("nan")
