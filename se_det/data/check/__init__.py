"""Everything that can be wrong with a COCO data set, found at once and named; a cleaned copy of what can be."""

from .findings import ERROR, KINDS, NOTE, SEVERITIES, WARNING, Finding, Findings
from .report import Report, check_dataset
from .splits import compare_splits

__all__ = [
    "ERROR",
    "KINDS",
    "NOTE",
    "SEVERITIES",
    "WARNING",
    "Finding",
    "Findings",
    "Report",
    "check_dataset",
    "compare_splits",
]
