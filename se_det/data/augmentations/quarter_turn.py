"""Quarter turns, for pictures without an up and a down: from above, through a microscope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@dataclass(frozen=True)
class QuarterTurn:
    """So many quarters of a turn, counter-clockwise; nothing is resampled.

    Attributes:
        old: height and width px before.
        quarters: 1, 2 or 3.
    """

    old: tuple[int, int]
    quarters: int
    mirrored = False
    window = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width px afterwards."""
        return self.old if self.quarters == 2 else self.old[::-1]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3): a view."""
        return np.rot90(pixels, self.quarters)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask."""
        return np.rot90(mask, self.quarters)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        (x, y), (height, width) = xy.T, self.old
        turned = {1: (y, width - x), 2: (width - x, height - y), 3: (height - y, x)}[self.quarters]
        return np.stack(turned, axis=1)


@AUGMENTATIONS.register()
class RandomQuarterTurn(RandomApply):
    """One of the three turns by 90, 180 and 270 degrees.

    Args:
        probability: of a turn; 0.75 makes all four positions equally frequent.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, probability: float = 0.75) -> None:
        super().__init__(probability=probability)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        return sample.transformed(QuarterTurn(sample.size, int(random.integers(1, 4))))
