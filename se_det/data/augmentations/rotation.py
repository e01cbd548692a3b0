"""Turning by any angle (Detectron2's RandomRotation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .arguments import flag, number, span
from .polygon_clip import Window
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@dataclass(frozen=True)
class Rotation:
    """A turn about the image's centre, which becomes the centre of the new image.

    Attributes:
        old: height and width px before.
        size: height and width px after.
        degrees: counter-clockwise, as it is looked at.
        fill: grey level of what was outside of the image.
    """

    old: tuple[int, int]
    size: tuple[int, int]
    degrees: float
    fill: float = 0.0
    mirrored = False

    @property
    def window(self) -> Window:
        """All of the new image."""
        return 0, 0, self.size[1], self.size[0]

    @cached_property
    def matrix(self) -> np.ndarray:
        """float64 (2, 3): what new x and y are made of from x, y and 1."""
        cosine, sine = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        turn = np.array([[cosine, sine], [-sine, cosine]])
        centre, new_centre = (np.array([width, height]) / 2 for height, width in (self.old, self.size))
        return np.concatenate([turn, (new_centre - turn @ centre)[:, None]], axis=1)

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), bilinear."""
        return self._warped(pixels, cv2.INTER_LINEAR, (self.fill,) * 3)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask, by the nearest pixel."""
        return self._warped(mask, cv2.INTER_NEAREST, 0)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        return xy @ self.matrix[:, :2].T + self.matrix[:, 2]

    def _warped(self, pixels: np.ndarray, method: int, fill: object) -> np.ndarray:
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2].sum(axis=1) * 0.5 - 0.5  # OpenCV's x and y are 0 at the centre of a pixel
        height, width = self.size
        return cv2.warpAffine(np.ascontiguousarray(pixels), matrix, (width, height), flags=method, borderValue=fill)


@AUGMENTATIONS.register()
class RandomRotation(RandomApply):
    """A turn by an angle drawn between two. The box of an object without a mask becomes that of its turned box, and so
    too large: small angles, or masks.

    Args:
        angle: degrees, counter-clockwise, the lowest and the highest; or one number.
        expand: whether the image becomes as large as the turned one; else its corners are cut off.
        fill: grey level of what was outside of the image.
        probability: of a turn.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self, *, angle: float | Sequence[float] = (-10, 10), expand: bool = False, fill: float = 0.0,
        probability: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.angle = span(self, "angle", (angle, angle) if isinstance(angle, (int, float)) else angle, -360, 360)
        self.expand, self.fill = flag(self, "expand", expand), number(self, "fill", fill, 0, 255)

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        degrees = random.uniform(*self.angle)
        if degrees % 360 == 0:
            return sample
        (height, width), size = sample.size, sample.size
        if self.expand:
            cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
            size = round(height * cosine + width * sine), round(height * sine + width * cosine)
        return sample.transformed(Rotation(sample.size, size, degrees, self.fill))
