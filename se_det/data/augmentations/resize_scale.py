"""Resizing to fit into a target size times a random number (Detectron2's ResizeScale)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ..transforms import RESIZE_METHODS
from .arguments import one_of, size, span
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply
from .resize import Resize


def fitting_size(old: tuple[int, int], target: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width px of an image `old` in the largest size that fits into `scale` times `target`.

    The operations and their order decide some roundings and are Detectron2's.
    """
    height, width = np.multiply(target, scale)
    new = np.round(np.multiply(old, np.minimum(height / old[0], width / old[1]))).astype(int)
    return max(int(new[0]), 1), max(int(new[1]), 1)


@AUGMENTATIONS.register()
class ResizeScale(RandomApply):
    """Both sides times one number, so that the image fits into the target size times a number that is drawn.

    Args:
        min_scale, max_scale: of the number.
        target_height, target_width: px.
        method: of `transforms.resize_image`. Default: INPUT.RESIZE.
        probability: of the resizing.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    def __init__(
        self, *, min_scale: float, max_scale: float, target_height: int, target_width: int, method: str = "pil",
        probability: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.scales = span(self, "min_scale, max_scale", (min_scale, max_scale), 0.01, 100)
        self.target = size(self, "target_height, target_width", (target_height, target_width))
        self.method = one_of(self, "method (INPUT.RESIZE)", method, RESIZE_METHODS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"method": cfg.INPUT.RESIZE}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        new = fitting_size(sample.size, self.target, random.uniform(*self.scales))
        return sample.transformed(Resize(sample.size, new, self.method))
