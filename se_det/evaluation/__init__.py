"""Evaluation: AP of boxes and masks, classes of pixels, panoptic quality, and pictures of what is found."""

from . import cityscapes_eval, lvis_eval, panoptic_eval, sem_seg_eval, voc_eval  # register theirs
from .coco_eval import CocoEvaluator
from .coco_metrics import coco_metrics
from .evaluator import evaluate
from .ground_truth import GroundTruth

__all__ = [
    "CocoEvaluator", "GroundTruth", "cityscapes_eval", "coco_metrics", "evaluate", "lvis_eval", "panoptic_eval",
    "sem_seg_eval", "voc_eval",
]  # fmt: skip
