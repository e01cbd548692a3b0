"""Brightness, contrast, saturation, hue and the order of channels (SSD, Liu et al. 2016; Howard 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ..images import FORMATS
from .arguments import flag, one_of, span
from .colour import grey, hue_shifted, saturated, scaled
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class PhotometricDistort(RandomApply):
    """Each of the changes with a probability, contrast as often before the changes of colour as after them
    (torchvision's RandomPhotometricDistort).

    Args:
        brightness, contrast, saturation: factors, the lowest and the highest.
        hue: of a turn on the colour circle, the lowest and the highest.
        permute: whether channels may change places.
        probability: of each change.
        format: BGR or RGB, the order of the channels. Default: INPUT.FORMAT.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, brightness: Sequence[float] = (0.875, 1.125), contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5), hue: Sequence[float] = (-0.05, 0.05), permute: bool = True,
        probability: float = 0.5, format: str = "BGR",
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.brightness, self.contrast = span(self, "brightness", brightness, 0), span(self, "contrast", contrast, 0)
        self.saturation, self.hue = span(self, "saturation", saturation, 0), span(self, "hue", hue, -0.5, 0.5)
        self.permute, self.format = flag(self, "permute", permute), one_of(self, "format", format, FORMATS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"format": cfg.INPUT.FORMAT}

    def __call__(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        return self.augmented(sample, random, partners)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        image = sample.image
        brighter, contrast, late, coloured, turned, swapped = random.random(6)
        factors = [random.uniform(*bounds) for bounds in (self.brightness, self.contrast, self.saturation, self.hue)]
        if brighter < self.probability:
            image = scaled(image, factors[0])
        if contrast < self.probability and late < 0.5:
            image = contrasted(image, factors[1], self.format)
        if coloured < self.probability:
            image = saturated(image, factors[2], self.format)
        if turned < self.probability:
            image = hue_shifted(image, factors[3], self.format)
        if contrast < self.probability and late >= 0.5:
            image = contrasted(image, factors[1], self.format)
        order = random.permutation(3)
        if self.permute and swapped < self.probability:
            image = np.ascontiguousarray(image[:, :, order])
        return replace(sample, image=image)


def contrasted(image: np.ndarray, factor: float, format: str) -> np.ndarray:
    """The image's distance to the mean of its grey one times `factor`."""
    shades = grey(image, format)
    mean = int(shades.sum(dtype=np.int64)) / shades.size
    return scaled(image, factor, (1 - factor) * mean)
