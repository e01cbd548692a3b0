"""Mirroring, with a probability (Detectron2's RandomFlip)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from ...errors import ConfigError
from ..transforms import channelwise
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

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), turned over."""
        return channelwise(pixels, self.bitmap)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask, turned over."""
        return cv2.flip(_readable(mask), 1 if self.direction == "horizontal" else 0)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        height, width = self.size
        if self.direction == "horizontal":
            return np.stack([width - xy[:, 0], xy[:, 1]], axis=1)
        return np.stack([xy[:, 0], height - xy[:, 1]], axis=1)


def _readable(pixels: np.ndarray) -> np.ndarray:
    """The same for OpenCV, which takes a window of an image as it is: only other views are copied."""
    whole_pixels = pixels.strides[1] == (1 if pixels.ndim == 2 else pixels.shape[2])
    return pixels if whole_pixels and min(pixels.strides) > 0 else np.ascontiguousarray(pixels)


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
