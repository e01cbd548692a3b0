"""The builtin detector: meta-architectures, their parts, and what they share."""

from . import architectures
from .build import build_backbone, build_detector, check_model

__all__ = ["architectures", "build_backbone", "build_detector", "check_model"]
