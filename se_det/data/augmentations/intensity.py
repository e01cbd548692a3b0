"""Detectron2's RandomBrightness, RandomContrast, RandomSaturation and RandomLighting, with its pixels.

They are written for RGB there; here `format` says what the image is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ..images import FORMATS
from .arguments import number, one_of, span
from .colour import LUMA, scaled
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply

# The principal components of ImageNet's colours, RGB: their lengths, and a column each (Krizhevsky et al. 2012).
LENGTHS = (0.2175, 0.0188, 0.0045)
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class _Intensity(RandomApply):
    """A weight drawn between two numbers: of the image, where 1 less the weight is of something else.

    Args:
        intensity_min, intensity_max: of the weight; 1 changes nothing.
        probability: of the change.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, intensity_min: float, intensity_max: float, probability: float = 1.0, format: str = "BGR"
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.bounds = span(self, "intensity_min, intensity_max", (intensity_min, intensity_max), 0)
        self.format = one_of(self, "format", format, FORMATS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"format": cfg.INPUT.FORMAT}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        return replace(sample, image=self.blended(sample.image, random.uniform(*self.bounds)))


@AUGMENTATIONS.register()
class RandomBrightness(_Intensity):
    """Blended with black."""

    def blended(self, image: np.ndarray, weight: float) -> np.ndarray:
        """The image at this weight."""
        return scaled(image, weight)


@AUGMENTATIONS.register()
class RandomContrast(_Intensity):
    """Blended with the mean of all its values."""

    def blended(self, image: np.ndarray, weight: float) -> np.ndarray:
        """The image at this weight."""
        mean = int(image.sum(dtype=np.int64)) / image.size
        return scaled(image, weight, (1 - weight) * mean)


@AUGMENTATIONS.register()
class RandomSaturation(_Intensity):
    """Blended with its grey one."""

    def blended(self, image: np.ndarray, weight: float) -> np.ndarray:
        """The image at this weight."""
        shades = image @ np.array(LUMA[self.format])
        blend = (1 - weight) * shades[:, :, None] + weight * image
        return np.clip(blend, 0, 255).astype(np.uint8)


@AUGMENTATIONS.register()
class RandomLighting(RandomApply):
    """A shift of colour along the principal components of ImageNet's, drawn from normal distributions.

    Args:
        scale: their standard deviation, in grey levels of 255.
        probability: of the change.
        format: BGR or RGB, the order of the channels. Default: INPUT.FORMAT.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, scale: float, probability: float = 1.0, format: str = "BGR") -> None:
        super().__init__(probability=probability)
        self.scale, self.format = number(self, "scale", scale, 0), one_of(self, "format", format, FORMATS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"format": cfg.INPUT.FORMAT}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        shift = np.array(COMPONENTS) @ (random.normal(scale=self.scale, size=3) * LENGTHS)
        shift = shift if self.format == "RGB" else shift[::-1]
        channels = [scaled(sample.image[:, :, at], 1, float(shift[at])) for at in range(3)]
        return replace(sample, image=np.stack(channels, axis=2))
