"""Two images as one, each partly transparent (Zhang et al. 2019, arXiv:1902.04103)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .arguments import number
from .combining import Placed, joined
from .crop import PAD_VALUE, Crop
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class MixUp(RandomApply):
    """The image and another, corner on corner, with the objects of both. The result is as large as the larger.

    Args:
        alpha: the image's weight is drawn from Beta(alpha, alpha); the larger, the nearer to one half.
        pad_value: grey level of what an image does not cover.
        probability: of all of it.

    Raises:
        ConfigError: a value that cannot work.
    """

    partners = 1
    labels_pixels = False  # a pixel of two images has two classes

    def __init__(self, *, alpha: float = 1.5, pad_value: float = PAD_VALUE, probability: float = 0.5) -> None:
        super().__init__(probability=probability)
        self.alpha, self.pad_value = number(self, "alpha", alpha, 0.01), number(self, "pad_value", pad_value, 0, 255)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        weight, samples = float(random.beta(self.alpha, self.alpha)), [sample, partners[0]]
        size = tuple(max(part.size[axis] for part in samples) for axis in (0, 1))
        first, second = (
            np.ascontiguousarray(Crop(part.size, 0, 0, size, self.pad_value).image(part.image)) for part in samples
        )
        canvas = cv2.addWeighted(first, weight, second, 1 - weight, 0)
        return joined([part.transformed(Placed(canvas, 0, 0)) for part in samples])
