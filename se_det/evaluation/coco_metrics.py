"""The COCO protocol's numbers for a list of COCO results; faster-coco-eval does the matching and accumulation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as mask_tools

from .ground_truth import GroundTruth

TASKS = ("bbox", "segm")
# In the order of the protocol's own summary.
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

logger = logging.getLogger(__name__)


def coco_metrics(truth: GroundTruth, results: Iterable[dict[str, Any]], task: str) -> dict[str, float]:
    """Average precision and recall of `results`, in percent.

    Args:
        truth: what to compare with.
        results: COCO results with the file's own image and category ids: `bbox` (XYWH, px) for task "bbox",
            `segmentation` (RLE) for "segm", and `score`. They are not changed.
        task: "bbox" or "segm".

    Returns:
        The twelve numbers of `SUMMARY`, then `AP-<class name>` for every class, nan where the ground truth holds
        nothing of the kind. APs, APm, APl and ARs, ARm, ARl are for small, medium and large objects (areas below
        32^2, up to 96^2, and above); AR1 and AR10 allow as many detections of a class per image, the others 100.

    Raises:
        ValueError: an unknown task.
    """
    return coco_scores(truth, results, task)[0]


def coco_scores(
    truth: GroundTruth, results: Iterable[dict[str, Any]], task: str
) -> tuple[dict[str, float], np.ndarray]:
    """The metrics of `coco_metrics`, and what they are means of.

    Returns:
        The metrics, and the precision (10 IoU thresholds, 101 recalls, classes) for objects of every size with 100
        detections per class and image; -1 for a class without objects.

    Raises:
        ValueError: an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"The task '{task}' is unknown; it must be one of {', '.join(TASKS)}.")
    detections = COCO(
        {
            "images": truth.coco.dataset["images"],
            "categories": truth.coco.dataset["categories"],
            "annotations": [_detection(truth, result, number, task) for number, result in enumerate(results, 1)],
        }
    )
    protocol = COCOeval_faster(truth.coco, detections, iouType=task, print_function=logger.debug)
    protocol.evaluate()
    protocol.accumulate()
    protocol.summarize()
    metrics = {name: _percent(value) for name, value in zip(SUMMARY, protocol.stats)}
    # Of (IoU thresholds, recall thresholds, classes, area ranges, detections): all sizes, most detections.
    precision = protocol.eval["precision"][:, :, :, 0, -1]
    for index, label in enumerate(truth.class_labels):
        known = precision[:, :, index]
        known = known[known > -1]
        metrics[f"AP-{label}"] = _percent(known.mean()) if known.size else float("nan")
    return metrics, precision


def _detection(truth: GroundTruth, result: dict[str, Any], number: int, task: str) -> dict[str, Any]:
    detection = {
        "id": number,
        "image_id": truth.image_numbers[result["image_id"]],
        "category_id": truth.category_numbers[result["category_id"]],
        "score": float(result["score"]),
        "iscrowd": 0,
    }
    # The size class of a detection is that of its mask for masks and of its box for boxes.
    if task == "segm":
        detection["segmentation"] = result["segmentation"]
        detection["area"] = float(mask_tools.area(result["segmentation"]))
    else:
        detection["bbox"] = [float(side) for side in result["bbox"]]
        detection["area"] = detection["bbox"][2] * detection["bbox"][3]
    return detection


def _percent(value: float) -> float:
    """The protocol says -1 where there is nothing to find."""
    return float(value) * 100 if value > -1 else float(np.nan)
