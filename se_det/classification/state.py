"""What a checkpoint keeps of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..training.state import RunState


@dataclass(kw_only=True)
class ClassifierState(RunState):
    """A run's state whose checkpoints also say what network they are of.

    Args:
        architecture: as `preprocessing.architecture` gives it.
    """

    architecture: dict[str, Any]

    def weights(self, step: int) -> dict[str, Any]:
        return {**super().weights(step), "architecture": self.architecture}
