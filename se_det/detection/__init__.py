"""The builtin detector: Faster and Mask R-CNN with a feature pyramid."""

from . import build_segmentation  # noqa: F401: registers
from .build import build_backbone, build_detector, check_model

__all__ = ["build_backbone", "build_detector", "check_model"]
