"""report.html: the results of an evaluation in one self-contained file."""

from .page import write_report
from .pictures import detections_drawn

__all__ = ["detections_drawn", "write_report"]
