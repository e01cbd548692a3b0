"""A crop that no class of pixels fills (Detectron2's RandomCrop_CategoryAreaConstraint)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ...errors import ConfigError
from .arguments import number
from .crop import Crop, RandomCrop
from .protocol import AUGMENTATIONS, Sample

ATTEMPTS = 10


@AUGMENTATIONS.register(name="RandomCrop_CategoryAreaConstraint")
class RandomCropCategoryAreaConstraint(RandomCrop):
    """RandomCrop, drawn up to ten times, until the window has two classes of pixels at least and none covers more than
    a share of what is labelled in it; the last draw is taken in any case.

    Args:
        single_category_max_area: the share; 1 draws once. Default: INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
        crop_type, crop_size, probability: of RandomCrop.

    Raises:
        ConfigError: a value that is unknown or cannot work; or samples have no classes of pixels.
    """

    def __init__(
        self, *, crop_type: str, crop_size: Sequence[float], single_category_max_area: float, probability: float = 1.0
    ) -> None:
        super().__init__(crop_type=crop_type, crop_size=crop_size, probability=probability)
        self.max_area = number(self, "single_category_max_area", single_category_max_area, 0, 1)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {
            **RandomCrop.defaults(cfg), "single_category_max_area": cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA,
        }  # fmt: skip

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        if self.max_area >= 1:
            return super().augmented(sample, random, partners)
        if sample.sem_seg is None:
            raise ConfigError(
                "RandomCrop_CategoryAreaConstraint (INPUT.CROP.SINGLE_CATEGORY_MAX_AREA) needs classes of pixels, "
                "which this model does not learn: use RandomCrop, or set INPUT.CROP.SINGLE_CATEGORY_MAX_AREA 1.0."
            )
        for _ in range(ATTEMPTS):
            top, left, size = self.draw(sample.size, random)
            labels = sample.sem_seg[top : top + size[0], left : left + size[1]]
            counts = np.bincount(labels[labels != sample.ignore].ravel())
            if np.count_nonzero(counts) > 1 and counts.max() < counts.sum() * self.max_area:
                break
        return sample.transformed(Crop(sample.size, top, left, size))
