"""Noise, as of a sensor in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .arguments import span
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class GaussianNoise(RandomApply):
    """Normally distributed noise, of each value its own.

    Args:
        sigma: standard deviation in grey levels (of 255), the lowest and the highest.
        probability: of the noise.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, sigma: Sequence[float] = (2.0, 15.0), probability: float = 0.5) -> None:
        super().__init__(probability=probability)
        self.sigma = span(self, "sigma", sigma, 0, 255)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        sigma = np.float32(random.uniform(*self.sigma))
        noise = random.standard_normal(sample.image.shape, np.float32)
        noise *= sigma
        noise += sample.image
        return replace(sample, image=np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8))
