"""Inference: a detector on images, files and videos, and pictures of what it finds."""

from .drawing import draw_detections
from .predictor import Predictor
from .result import Result

__all__ = ["Predictor", "Result", "draw_detections"]
