"""Resizing by the short side, drawn from some sizes (Detectron2's ResizeShortestEdge)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image

from ...errors import ConfigError
from ..resized_window import resize_window
from ..transforms import RESIZE_METHODS, resize_image, short_side_size
from .lazy_image import LazyImage
from .protocol import AUGMENTATIONS, Sample

SAMPLINGS = ("choice", "range")


@dataclass(frozen=True)
class Resize:
    """Another size, both axes on their own.

    Attributes:
        old: height and width px before.
        size: height and width px after.
        method: of `transforms.resize_image`.
    """

    old: tuple[int, int]
    size: tuple[int, int]
    method: str = "pil"
    mirrored = False
    window = None

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), resized."""
        return resize_image(pixels, *self.size, method=self.method)

    def part(self, before: LazyImage, rows: slice, columns: slice) -> np.ndarray:
        """A window of the image, see `MovedImage`."""
        return resize_window(before.whole(), *self.size, rows, columns, method=self.method)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """By the nearest pixel, so that it stays a mask."""
        if mask.shape == self.size:
            return mask
        height, width = self.size
        return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2), as float64."""
        (old_height, old_width), (height, width) = self.old, self.size
        return np.stack([xy[:, 0] * (width * 1.0 / old_width), xy[:, 1] * (height * 1.0 / old_height)], axis=1)


@AUGMENTATIONS.register()
class ResizeShortestEdge:
    """The short side becomes one of some sizes, the long side at most `max_size`. Takes one random number.

    Args:
        short_sides: px to draw from; for `range` the lowest and the highest. Default: INPUT.MIN_SIZE_TRAIN.
        max_size: the long side's limit px. Default: INPUT.MAX_SIZE_TRAIN.
        sampling: `choice` or `range` (whole numbers, both ends included). Default: INPUT.MIN_SIZE_TRAIN_SAMPLING.
        method: of `transforms.resize_image`. Default: INPUT.RESIZE.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    partners = 0

    def __init__(
        self, *, short_sides: Sequence[int], max_size: int, sampling: str = "choice", method: str = "pil"
    ) -> None:
        for key, value, known in (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, SAMPLINGS),
            ("INPUT.RESIZE", method, RESIZE_METHODS),
        ):
            if value not in known:
                raise ConfigError(f"{key} '{value}' is unknown: use one of {', '.join(known)}.")
        sides = (short_sides,) if isinstance(short_sides, int) else tuple(short_sides)
        if not all(isinstance(side, int) for side in sides):
            raise ConfigError(f"INPUT.MIN_SIZE_TRAIN must be whole numbers of px, got {sides}.")
        if not sides or min(sides) < 0 or (sampling == "range" and (len(sides) != 2 or not 0 < sides[0] <= sides[1])):
            form = "two sizes, the lower first" if sampling == "range" else "sizes in px (0 leaves images as they are)"
            raise ConfigError(f"INPUT.MIN_SIZE_TRAIN is {sides}; for sampling by {sampling} it must be {form}.")
        if max_size <= 0:
            raise ConfigError(f"INPUT.MAX_SIZE_TRAIN is {max_size}; it must be a number of px above 0.")
        self.short_sides, self.max_size, self.sampling, self.method = sides, max_size, sampling, method

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {
            "short_sides": cfg.INPUT.MIN_SIZE_TRAIN,
            "max_size": cfg.INPUT.MAX_SIZE_TRAIN,
            "sampling": cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            "method": cfg.INPUT.RESIZE,
        }

    def __call__(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        if self.sampling == "range":
            side = int(random.integers(self.short_sides[0], self.short_sides[1], endpoint=True))
        else:
            side = int(self.short_sides[random.integers(len(self.short_sides))])
        size = short_side_size(*sample.size, side, self.max_size)
        return sample.transformed(Resize(sample.size, size, self.method))
