"""A folder that detects without PyTorch and without se_det: a graph, and one readable file that runs it."""

from .folder import write_runner

__all__ = ["write_runner"]
