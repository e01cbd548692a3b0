"""Mirroring, with a probability (Detectron2's RandomFlip)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from ...errors import ConfigError
from ..transforms import channelwise, readable
from .lazy_image import LazyImage
from .protocol import AUGMENTATIONS, Sample

FLIPS = ("none", "horizontal", "vertical")


@dataclass(frozen=True)
class Flip:
    """A mirror: left and right change places, or top and bottom.

    Attributes:
        size: height and width px.
        direction: horizontal or vertical.
    """

    size: tuple[int, int]
    direction: str
    window = None

    @property
    def mirrored(self) -> bool:
        """Only a horizontal mirror exchanges keypoints, as in Detectron2."""
        return self.direction == "horizontal"

    @property
    def _code(self) -> int:
        return 1 if self.direction == "horizontal" else 0

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), turned over."""
        return channelwise(pixels, self.bitmap)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask, turned over."""
        return cv2.flip(readable(mask), self._code)

    def part(self, before: LazyImage, rows: slice, columns: slice) -> np.ndarray:
        """A window of the image, see `MovedImage`."""
        height, width = self.size
        if self.direction == "horizontal":
            columns = slice(width - columns.stop, width - columns.start)
        else:
            rows = slice(height - rows.stop, height - rows.start)
        return self.image(before.part(rows, columns))

    def planes(self, before: LazyImage, out: Sequence[np.ndarray]) -> None:
        """The channels, see `MovedImage`: OpenCV turns planes over in less time than interleaved channels."""
        planes = np.empty((len(out), *self.size), np.uint8)
        before.planes(planes)
        for plane, turned in zip(planes, out):
            cv2.flip(plane, self._code, turned)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        height, width = self.size
        if self.direction == "horizontal":
            return np.stack([width - xy[:, 0], xy[:, 1]], axis=1)
        return np.stack([xy[:, 0], height - xy[:, 1]], axis=1)


@AUGMENTATIONS.register()
class RandomFlip:
    """A mirror, drawn for each image. Takes one random number, whatever the settings.

    Args:
        direction: none, horizontal or vertical. Default: INPUT.RANDOM_FLIP.
        probability: of the mirror.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    partners = 0

    def __init__(self, *, direction: str = "horizontal", probability: float = 0.5) -> None:
        if direction not in FLIPS:
            raise ConfigError(f"INPUT.RANDOM_FLIP '{direction}' is unknown: use one of {', '.join(FLIPS)}.")
        if not 0 <= probability <= 1:
            raise ConfigError(f"RandomFlip's probability is {probability}; it must be between 0 and 1.")
        self.direction, self.probability = direction, probability

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"direction": cfg.INPUT.RANDOM_FLIP}

    def __call__(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        if random.random() < self.probability and self.direction != "none":
            return sample.transformed(Flip(sample.size, self.direction))
        return sample
