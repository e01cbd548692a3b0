"""Evaluation: COCO box and mask AP of a detector, and pictures of what it finds."""

from .coco_eval import CocoEvaluator
from .coco_metrics import coco_metrics
from .drawing import draw_detections
from .ground_truth import GroundTruth
from .predictor import Predictor
from .runner import evaluate

__all__ = ["CocoEvaluator", "GroundTruth", "Predictor", "coco_metrics", "draw_detections", "evaluate"]
