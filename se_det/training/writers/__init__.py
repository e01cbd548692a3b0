"""Where a run's numbers go: a registry of writers, chosen by WRITERS. None imports its package before it is used."""

from . import mlflow, tensorboard, wandb  # noqa: F401 (registered)
from .json_lines import truncate_metrics
from .registry import WRITERS, Writer, Writers, check_writers

__all__ = ["WRITERS", "Writer", "Writers", "check_writers", "truncate_metrics"]
