"""Evaluation: AP of boxes and masks, classes of pixels, panoptic quality, and pictures of what is found."""

from . import cityscapes_eval, lvis_eval, panoptic_eval, sem_seg_eval, voc_eval  # noqa: F401: they register themselves
from .coco_eval import CocoEvaluator
from .coco_metrics import coco_metrics
from .evaluator import evaluate
from .ground_truth import GroundTruth

__all__ = ["CocoEvaluator", "GroundTruth", "coco_metrics", "evaluate"]
