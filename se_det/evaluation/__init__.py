"""Evaluation: COCO box and mask AP of a detector, and pictures of what it finds."""

from .coco_eval import CocoEvaluator
from .coco_metrics import coco_metrics
from .evaluator import evaluate
from .ground_truth import GroundTruth

__all__ = ["CocoEvaluator", "GroundTruth", "coco_metrics", "evaluate"]
