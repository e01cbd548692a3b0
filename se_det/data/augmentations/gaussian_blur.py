"""Blur (torchvision's GaussianBlur)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..transforms import channelwise
from .arguments import span
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class GaussianBlur(RandomApply):
    """A Gaussian filter of three standard deviations to each side.

    Args:
        sigma: standard deviation px, the lowest and the highest.
        probability: of the blur.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        super().__init__(probability=probability)
        self.sigma = span(self, "sigma", sigma, 0.01, 100)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        sigma = random.uniform(*self.sigma)
        side = 2 * math.ceil(3 * sigma) + 1

        def blurred(forward: np.ndarray) -> np.ndarray:
            # At the edges the image is mirrored, as in torchvision.
            return cv2.GaussianBlur(
                np.ascontiguousarray(forward), (side, side), sigma, borderType=cv2.BORDER_REFLECT_101
            )

        return replace(sample, image=channelwise(sample.image, blurred))
