"""Evaluation in windows: the windows of an image become one output before an evaluator sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from ..data.tile_samples import WindowSampler, image_record
from ..inference.tiled import TiledInstances
from .evaluator import Evaluator


class TiledEvaluator:
    """An evaluator that is given samples of windows, and hands whole images on to another.

    Args:
        evaluator: takes images.
        cfg: see `TiledInstances`.
        sampler: what cut the images.
    """

    def __init__(self, evaluator: Evaluator, cfg: CfgNode, sampler: WindowSampler) -> None:
        self._evaluator, self._cfg, self._sampler = evaluator, cfg, sampler
        self._current: TiledInstances | None = None

    def reset(self) -> None:
        """See `Evaluator`."""
        self._current = None
        self._evaluator.reset()

    def process(self, samples: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]]) -> None:
        """Take windows, those of an image one after another."""
        for sample, output in zip(samples, outputs):
            if self._current is None:
                size = sample["image_size"]
                self._current = TiledInstances(self._cfg, self._sampler.windows(*size), size)
            self._current.add(output["instances"])
            if self._current.complete:
                instances, self._current = self._current.merged(), None
                self._evaluator.process([image_record(sample)], [{"instances": instances}])

    def evaluate(self) -> dict[str, dict[str, float]]:
        """See `Evaluator`."""
        return self._evaluator.evaluate()
