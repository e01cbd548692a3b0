"""Inference: a detector on images, files and videos, and pictures of what it finds."""

from .drawing import draw_detections
from .predictor import Predictor

__all__ = ["Predictor", "draw_detections"]
