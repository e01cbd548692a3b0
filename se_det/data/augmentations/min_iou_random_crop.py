"""A crop that keeps its overlap with every object above a drawn one (SSD's sampling, Liu et al. 2016, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ConfigError
from .arguments import number, whole_number
from .crop import Crop
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply

ASPECTS = (0.5, 2.0)  # of a window: height / width


@AUGMENTATIONS.register()
class MinIoURandomCrop(RandomApply):
    """A window whose IoU with each box is at least a number drawn from some, and which has the centre of one.

    Objects whose centre is outside of the window are left out. As often as any of the numbers the image stays as it
    is, or the window may be any.

    Args:
        min_ious: to draw from.
        min_crop_size: the least share of height and of width that a window has.
        mode_trials: numbers that are drawn before the image is left as it is.
        crop_trials: windows that are tried before another number is drawn.
        probability: of all of it.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size: float = 0.3,
        mode_trials: int = 1000, crop_trials: int = 50, probability: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        if not isinstance(min_ious, Sequence) or isinstance(min_ious, str):
            raise ConfigError(f"MinIoURandomCrop's min_ious is {min_ious!r}; it must be a list of numbers from 0 to 1.")
        self.min_ious = tuple(number(self, "min_ious", value, 0, 1) for value in min_ious)
        self.min_crop_size = number(self, "min_crop_size", min_crop_size, 0.01, 1)
        self.mode_trials = whole_number(self, "mode_trials", mode_trials, 1)
        self.crop_trials = whole_number(self, "crop_trials", crop_trials, 1)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        choices = (None, *self.min_ious, 0.0)  # None: the image stays as it is
        for _ in range(self.mode_trials):
            least = choices[random.integers(len(choices))]
            if least is None:
                return sample
            for _ in range(self.crop_trials):
                window = self._window(sample.size, random)
                if window is None or (len(sample.boxes) and _ious(window, sample.boxes).min() < least):
                    continue
                inside = _centres_inside(window, sample.boxes)
                if len(inside) and not inside.any():
                    continue
                left, top, right, bottom = window
                kept = sample if inside.all() else sample.select(inside)
                return kept.transformed(Crop(sample.size, top, left, (bottom - top, right - left)))
        return sample

    def _window(self, size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int] | None:
        """XYXY px; None when what was drawn is too high or too wide."""
        new = [max(int(random.uniform(self.min_crop_size, 1) * side), 1) for side in size]
        top, left = (int(random.uniform(0, side - part)) for side, part in zip(size, new))
        if not ASPECTS[0] <= new[0] / new[1] <= ASPECTS[1]:
            return None
        return left, top, left + new[1], top + new[0]


def _ious(window: tuple[int, int, int, int], boxes: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (areas + (window[2] - window[0]) * (window[3] - window[1]) - shared)


def _centres_inside(window: tuple[int, int, int, int], boxes: np.ndarray) -> np.ndarray:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > window[:2]) & (centres < window[2:])).all(axis=1)
