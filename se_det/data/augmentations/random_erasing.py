"""Erasing a rectangle (Zhong et al. 2017, arXiv:1708.04896; torchvision's RandomErasing)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...errors import ConfigError
from .arguments import number, span
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply

ATTEMPTS = 10  # to find a rectangle that fits, as in torchvision


@AUGMENTATIONS.register()
class RandomErasing(RandomApply):
    """A rectangle anywhere is filled. Objects behind it stay as they are, also in part; those all behind it do not.

    Args:
        scale: its share of the image's area, the lowest and the highest.
        ratio: its height / width, the lowest and the highest.
        value: a grey level, or `random` for noise.
        probability: of a rectangle.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, scale: Sequence[float] = (0.02, 0.33), ratio: Sequence[float] = (0.3, 3.3),
        value: float | str = "random", probability: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.scale, self.ratio = span(self, "scale", scale, 0, 1), span(self, "ratio", ratio, 0.01, 100)
        if isinstance(value, str) and value != "random":
            raise ConfigError(f"RandomErasing's value is {value!r}; it must be a grey level from 0 to 255, or random.")
        self.value = value if value == "random" else number(self, "value", value, 0, 255)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        height, width = sample.size
        for _ in range(ATTEMPTS):
            area = height * width * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(*np.log(self.ratio)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if not (0 < rows < height and 0 < columns < width):
                continue
            top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
            image = sample.image.copy()
            noise = random.integers(0, 256, (rows, columns, 3), np.uint8) if self.value == "random" else self.value
            image[top : top + rows, left : left + columns] = noise
            low, high = np.array([left, top]), np.array([left + columns, top + rows])
            hidden = (sample.boxes[:, :2] >= low).all(axis=1) & (sample.boxes[:, 2:] <= high).all(axis=1)
            erased = replace(sample, image=image)
            return erased.select(~hidden) if hidden.any() else erased
        return sample
