"""Studies: a grid of runs that differ in a few keys, made resumably by one or many processes, and what they say."""

from .plan import Run, Study, read_study
from .running import run_study

__all__ = ["Run", "Study", "read_study", "run_study"]
