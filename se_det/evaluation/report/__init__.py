"""report.html: the results of an evaluation in one self-contained file."""

from .page import write_report

__all__ = ["write_report"]
