"""Large-scale jitter: a random size, then a window of a fixed one (Ghiasi et al. 2021, arXiv:2012.07177)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image

from ..transforms import RESIZE_METHODS
from . import arguments
from .arguments import flag, number, one_of, span
from .crop import PAD_VALUE, Crop
from .fixed_size_crop import draw_offset
from .lazy_image import LazyImage, MovedImage, stored
from .polygon_clip import Window
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply
from .resize import Resize
from .resize_scale import fitting_size


@dataclass(frozen=True)
class ResizedCrop:
    """Resizing, then cropping. Little is computed beyond the window."""

    resize: Resize
    crop: Crop
    mirrored = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width px."""
        return self.crop.size

    @property
    def window(self) -> Window:
        """All of the new image."""
        return self.crop.window

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3)."""
        whole = slice(0, self.size[0]), slice(0, self.size[1])
        return self.part(stored(pixels), *whole)

    def part(self, before: LazyImage, rows: slice, columns: slice) -> np.ndarray:
        """A window of the image, see `MovedImage`."""
        return self.crop.part(MovedImage(before, self.resize), rows, columns)

    def planes(self, before: LazyImage, out: Sequence[np.ndarray]) -> None:
        """The channels, see `MovedImage`."""
        self.crop.planes(MovedImage(before, self.resize), out)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask, by the nearest pixel."""
        top, left, bottom, right = self._seen()
        rows, columns = (nearest_pixels(old, new) for old, new in zip(self.resize.old, self.resize.size))
        seen = mask[rows[top:bottom]][:, columns[left:right]]
        return Crop(seen.shape, 0, 0, self.crop.size).bitmap(seen)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        return self.crop.points(self.resize.points(xy))

    def _seen(self) -> tuple[int, int, int, int]:
        """The window px in the resized image, without what is filled: top, left, bottom, right."""
        (height, width), crop = self.resize.size, self.crop
        return crop.top, crop.left, min(crop.top + crop.size[0], height), min(crop.left + crop.size[1], width)


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """int64 (new,): which of `old` pixels Pillow's nearest filter takes for each of `new`; asked of Pillow itself."""
    line = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(line.resize((new, 1), Image.Resampling.NEAREST))[0].astype(np.int64)


@AUGMENTATIONS.register()
class LargeScaleJitter(RandomApply):
    """ResizeScale, then FixedSizeCrop, in one.

    Args:
        size: height and width px of the result and of the target that scales are of; one number is both.
        min_scale, max_scale: of the resized image.
        pad, pad_value: see FixedSizeCrop.
        method: of `transforms.resize_image`. Default: INPUT.RESIZE.
        probability: of all of it.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    def __init__(
        self, *, size: int | Sequence[int] = 1024, min_scale: float = 0.1, max_scale: float = 2.0, pad: bool = True,
        pad_value: float = PAD_VALUE, method: str = "pil", probability: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.size = arguments.size(self, "size", size)
        self.scales = span(self, "min_scale, max_scale", (min_scale, max_scale), 0.01, 100)
        self.pad, self.pad_value = flag(self, "pad", pad), number(self, "pad_value", pad_value, 0, 255)
        self.method = one_of(self, "method (INPUT.RESIZE)", method, RESIZE_METHODS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"method": cfg.INPUT.RESIZE}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        new = fitting_size(sample.size, self.size, random.uniform(*self.scales))
        top, left = draw_offset(new, self.size, random)
        height, width = self.size
        if not self.pad:
            height, width = min(height, new[0]), min(width, new[1])
        crop = Crop(new, top, left, (height, width), self.pad_value)
        return sample.transformed(ResizedCrop(Resize(sample.size, new, self.method), crop))
