"""A window of a fixed size, padded where the image is smaller (Detectron2's FixedSizeCrop)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arguments import flag, number, size
from .crop import PAD_VALUE, Crop
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


def draw_offset(old: tuple[int, int], new: tuple[int, int], random: np.random.Generator) -> tuple[int, int]:
    """Top and left px of a window `new` in an image `old`. One random number is for both, as in Detectron2."""
    offset = np.round(np.multiply(np.maximum(np.subtract(old, new), 0), random.uniform(0.0, 1.0))).astype(int)
    return int(offset[0]), int(offset[1])


@AUGMENTATIONS.register()
class FixedSizeCrop(RandomApply):
    """A window somewhere in the image, filled on the right and below where the image ends.

    Args:
        crop_size: height and width px.
        pad: whether it is filled; else the window ends where the image does.
        pad_value: the grey level that fills it.
        probability: of the crop.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, crop_size: Sequence[int], pad: bool = True, pad_value: float = PAD_VALUE, probability: float = 1.0
    ) -> None:
        super().__init__(probability=probability)
        self.crop_size, self.pad = size(self, "crop_size", crop_size), flag(self, "pad", pad)
        self.pad_value = number(self, "pad_value", pad_value, 0, 255)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        top, left = draw_offset(sample.size, self.crop_size, random)
        height, width = self.crop_size
        if not self.pad:
            height, width = min(height, sample.size[0]), min(width, sample.size[1])
        return sample.transformed(Crop(sample.size, top, left, (height, width), self.pad_value))
