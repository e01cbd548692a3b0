"""What evaluators of pixels have in common."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_json
from .ground_truth import without_nan

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

SHOWN_IMAGES = 6  # the worst ones and as many of the best, for a report
Shown = tuple[float, Hashable, Any]  # score, image id, what was found

logger = logging.getLogger(__name__)


class PixelEvaluator:
    """Every process gives its part to a subclass's `process`; its `evaluate` gathers the parts.

    Attributes:
        task: what its metrics stand under.
        file: what they are written to.
        outcome: of the last evaluation, on the first process, for a report.
    """

    task: str
    file: str

    def __init__(self, dataset: CocoDataset, output_folder: str | Path | None) -> None:
        """
        Args:
            output_folder: the run's, in whose folder `inference` files are written.
        """
        self.dataset = dataset
        self.output_folder = None if output_folder is None else Path(output_folder)
        self.reset()

    @property
    def metrics(self) -> list[str]:
        """The names of what `evaluate` gives, as "task/name"."""
        return [f"{self.task}/{name}" for name in self.names_of_metrics()]

    def names_of_metrics(self) -> list[str]:
        """The names of the task's numbers, in order."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything."""
        self._images: list[Shown] = []
        self.outcome: Any = None

    def _show(self, score: float, image_id: Hashable, found: Any) -> None:
        """Keep an image for a report where it is one of the worst or the best."""
        self._images = ends([*self._images, (score, image_id, found)])

    def _publish(
        self, values: Mapping[str, float], summary: Sequence[str], documents: Mapping[str, Any]
    ) -> dict[str, dict[str, float]]:
        """Log some of the metrics; write all, and documents by their files' names.

        Raises:
            CheckpointError: they cannot be written.
        """
        logger.info("%s: %s", self.task, ", ".join(f"{name} {values[name]:.3f}" for name in summary))
        metrics = {self.task: dict(values)}
        if self.output_folder is not None:
            folder = self.output_folder / "inference"
            for name, document in documents.items():
                write_json(folder / name, document)
            write_json(folder / self.file, without_nan(metrics), indent=2)
        return metrics


def ends(images: list[Shown]) -> list[Shown]:
    """The worst and the best of (score, image id, ...), from the worst on."""
    ranked = sorted(images, key=lambda entry: entry[0])
    return ranked if len(ranked) <= 2 * SHOWN_IMAGES else ranked[:SHOWN_IMAGES] + ranked[-SHOWN_IMAGES:]
