"""How each meta-architecture is exported: one file each."""

from . import rcnn
from .registry import EXPORTERS, Found, GraphDetector

__all__ = ["EXPORTERS", "Found", "GraphDetector", "rcnn"]
