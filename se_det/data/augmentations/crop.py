"""Cropping: a window of the image, of one of four kinds of sizes (Detectron2's RandomCrop)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ...errors import ConfigError
from ..transforms import split_channels
from .arguments import one_of
from .lazy_image import LazyImage
from .polygon_clip import Window
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply

TYPES = ("relative_range", "relative", "absolute", "absolute_range")
PAD_VALUE = 128.0  # grey, Detectron2's


@dataclass(frozen=True)
class Crop:
    """A window of the image; what of it lies outside of the image is filled.

    Attributes:
        old: height and width px before.
        top, left: of the window px; negative ones put the image further down or to the right.
        size: height and width px of the window.
        fill: the grey level.
    """

    old: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    fill: float = PAD_VALUE
    mirrored = False

    @property
    def window(self) -> Window:
        """All of the new image."""
        return 0, 0, self.size[1], self.size[0]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3): a view when nothing is to be filled."""
        inner, outer = self._overlap()
        cut = pixels[inner]
        if cut.shape[:2] == self.size:
            return cut
        result = np.full((*self.size, 3), self.fill, np.uint8)
        result[outer] = cut
        return result

    def part(self, before: LazyImage, rows: slice, columns: slice) -> np.ndarray:
        """A window of the image, see `MovedImage`."""
        size = rows.stop - rows.start, columns.stop - columns.start
        window = replace(self, top=self.top + rows.start, left=self.left + columns.start, size=size)
        inner, _ = window._overlap()
        cut = before.part(*inner)
        return replace(
            window, old=cut.shape[:2], top=window.top - inner[0].start, left=window.left - inner[1].start
        ).image(cut)

    def planes(self, before: LazyImage, out: Sequence[np.ndarray]) -> None:
        """The channels, see `MovedImage`."""
        inner, (rows, columns) = self._overlap()
        part = before.part(*inner)
        if part.shape[:2] == self.size:
            split_channels(part, out)
            return
        planes = np.empty((len(out), *part.shape[:2]), np.uint8)
        if part.size:
            split_channels(part, planes)  # into windows of `out` OpenCV would write row by row
        for plane, filled in zip(planes, out):
            filled[:] = np.uint8(self.fill)
            filled[rows, columns] = plane

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask; empty where it is filled."""
        result = np.zeros(self.size, np.uint8)
        inner, outer = self._overlap()
        result[outer] = mask[inner]
        return result

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        return xy - np.array([self.left, self.top], np.float64)

    def _overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What the image and the window share, in the image and in the window."""
        inner, outer = [], []
        for start, length, old in zip((self.top, self.left), self.size, self.old):
            first = min(max(start, 0), old)
            last = max(min(start + length, old), first)
            inner.append(slice(first, last))
            outer.append(slice(first - start, last - start))
        return tuple(inner), tuple(outer)


@AUGMENTATIONS.register()
class RandomCrop(RandomApply):
    """A window of the image anywhere in it. With masks a box becomes its mask's extent, as in Detectron2.

    Args:
        crop_type: `relative`: `crop_size` is the share of height and width, to 1; `relative_range`: the least of them;
            `absolute`: px, at most the image's; `absolute_range`: both sides are drawn between its two numbers.
            Default: INPUT.CROP.TYPE.
        crop_size: two numbers. Default: INPUT.CROP.SIZE.
        probability: of the crop.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    def __init__(self, *, crop_type: str, crop_size: Sequence[float], probability: float = 1.0) -> None:
        super().__init__(probability=probability)
        self.crop_type = one_of(self, "crop_type (INPUT.CROP.TYPE)", crop_type, TYPES)
        relative = self.crop_type.startswith("relative")
        pair = tuple(crop_size) if isinstance(crop_size, Sequence) and not isinstance(crop_size, str) else ()
        kinds = (int, float) if relative else int
        sound = len(pair) == 2 and all(isinstance(side, kinds) and not isinstance(side, bool) for side in pair)
        sound = sound and min(pair) > 0 and not (relative and max(pair) > 1)
        if not sound or (crop_type == "absolute_range" and pair[0] > pair[1]):
            form = "shares above 0 and up to 1, of height and width" if relative else "whole numbers of px above 0"
            lower = ", the lower first" if crop_type == "absolute_range" else ""
            raise ConfigError(
                f"RandomCrop's crop_size (INPUT.CROP.SIZE) is {crop_size!r}; for {crop_type} it must be two {form}"
                f"{lower}."
            )
        self.crop_size = pair

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"crop_type": cfg.INPUT.CROP.TYPE, "crop_size": cfg.INPUT.CROP.SIZE}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        return sample.transformed(Crop(sample.size, *self.draw(sample.size, random)))

    def draw(self, old: tuple[int, int], random: np.random.Generator) -> tuple[int, int, tuple[int, int]]:
        """Top, left, and height and width px of a window in an image of a size."""
        height, width = old
        size = self._size(height, width, random)
        top = int(random.integers(height - size[0] + 1))
        left = int(random.integers(width - size[1] + 1))
        return top, left, size

    def _size(self, height: int, width: int, random: np.random.Generator) -> tuple[int, int]:
        one, other = self.crop_size
        if self.crop_type == "absolute":
            return min(one, height), min(other, width)
        if self.crop_type == "absolute_range":
            drawn = [random.integers(min(side, one), min(side, other) + 1) for side in (height, width)]
            return int(drawn[0]), int(drawn[1])
        shares = self.crop_size
        if self.crop_type == "relative_range":
            least = np.array(self.crop_size, np.float32)  # as in Detectron2, for the roundings
            shares = least + random.random(2) * (1 - least)
        return max(int(height * shares[0] + 0.5), 1), max(int(width * shares[1] + 0.5), 1)
