"""The builtin detector: Faster and Mask R-CNN with a feature pyramid."""

from . import build_segmentation  # registers its models
from .build import build_backbone, build_detector, check_model

__all__ = ["build_backbone", "build_detector", "build_segmentation", "check_model"]
