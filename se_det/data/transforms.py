"""Resizing and flipping an image together with its boxes, polygons and bitmaps.

Sizes, the order of operations and the arithmetic are Detectron2's (ResizeShortestEdge, then RandomFlip), so that boxes
and polygons come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from ..errors import ConfigError

RESIZE_METHODS = ("pil", "fast")  # see `resize_image`
FLIPS = ("none", "horizontal", "vertical")
SAMPLINGS = ("choice", "range")
EMPTY = 1e-5  # px; an instance whose clipped box has a side not above this is none


def short_side_size(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """The new height and width px when the short side becomes `short_side`, or less where the long side would exceed
    `max_size`. A `short_side` of 0 leaves the image as it is.

    The operations and their order decide some roundings and are Detectron2's.
    """
    if short_side == 0:
        return height, width
    scale = short_side * 1.0 / min(height, width)
    new_height, new_width = (short_side, scale * width) if height < width else (scale * height, short_side)
    longest = max(new_height, new_width)
    if longest > max_size:
        scale = max_size * 1.0 / longest
        new_height, new_width = new_height * scale, new_width * scale
    # A strip's short side may round to 0, which no image can have.
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def resize_image(pixels: np.ndarray, height: int, width: int, *, method: str = "pil") -> np.ndarray:
    """Resize an image with a bilinear filter that widens when the image shrinks.

    Args:
        pixels: uint8 (H, W, 3), any order of channels.
        height, width: new size px.
        method: `pil` is Pillow's and Detectron2's pixels; `fast` is torch's, within one grey level of those.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ConfigError: an unknown method.
    """
    if method not in RESIZE_METHODS:
        raise ConfigError(f"INPUT.RESIZE '{method}' is unknown: use one of {', '.join(RESIZE_METHODS)}.")
    if pixels.shape[:2] == (height, width):
        return pixels
    return _channelwise(pixels, lambda forward: _RESIZE[method](forward, height, width))


def _pil_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _fast_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch warns of memory that it must not write to
    # The batch comes first and the channels are permuted then: with the strides of (N, H, W, 3) torch takes its kernel
    # for interleaved channels (0.9 ms to 800 x 1067 px), which `permute(2, 0, 1)[None]` does not (2.2 ms).
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        tensor, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()


_RESIZE = {"pil": _pil_resize, "fast": _fast_resize}


def _channelwise(pixels: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `work`, which treats all channels alike, makes of an image. A view with its channels reversed is turned
    forwards for it and back afterwards, without copies."""
    if pixels.strides[2] < 0:
        return work(pixels[:, :, ::-1])[:, :, ::-1]
    return work(pixels)


def to_tensor(pixels: np.ndarray, *, shared: bool = False) -> torch.Tensor:
    """uint8 (H, W, 3) as a contiguous tensor (3, H, W).

    Args:
        shared: in memory that another process can be given as it is, where it would else be copied on its way.
    """
    tensor = torch.empty(0, dtype=torch.uint8)
    if shared:
        tensor.set_(torch.UntypedStorage._new_shared(pixels.size))  # as torch's own collation in workers does
    tensor = tensor.resize_(3, *pixels.shape[:2])
    in_order = list(tensor.numpy())
    if pixels.strides[2] < 0:
        pixels, in_order = pixels[:, :, ::-1], in_order[::-1]
    cv2.split(np.ascontiguousarray(pixels), in_order)  # 0.2 ms for 800 x 1067 px, where NumPy takes 0.8
    return tensor


@dataclass(frozen=True)
class Geometry:
    """What is done to one image: resizing, then flipping.

    Attributes:
        old: height and width px before.
        new: height and width px after.
        flip: none, horizontal or vertical.
        method: of `resize_image`.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    flip: str = "none"
    method: str = "pil"

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), resized and flipped."""
        return _channelwise(resize_image(pixels, *self.new, method=self.method), self._flipped)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask uint8 (H, W), by the nearest pixel, so that it stays a mask."""
        if mask.shape != self.new:
            height, width = self.new
            mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        return self._flipped(mask)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2) xy px, as float64."""
        (old_height, old_width), (height, width) = self.old, self.new
        x = xy[:, 0] * (width * 1.0 / old_width)
        y = xy[:, 1] * (height * 1.0 / old_height)
        if self.flip == "horizontal":
            x = width - x
        elif self.flip == "vertical":
            y = height - y
        return np.stack([x, y], axis=1)

    def boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) XYXY px, clipped to the new image, as float32."""
        corners = self.points(xyxy.astype(np.float64).reshape(-1, 2)).reshape(-1, 2, 2)
        low, high = corners.min(axis=1), corners.max(axis=1)
        limit = np.array([self.new[1], self.new[0]], np.float64)
        clipped = [np.clip(corner, 0.0, limit) for corner in (low, high)]
        return np.concatenate(clipped, axis=1).astype(np.float32)

    def _flipped(self, pixels: np.ndarray) -> np.ndarray:
        if self.flip == "none":
            return pixels
        return cv2.flip(np.ascontiguousarray(pixels), 1 if self.flip == "horizontal" else 0)


class ResizeAndFlip:
    """Draws the `Geometry` of a training image."""

    def __init__(
        self,
        *,
        short_sides: Sequence[int],
        max_size: int,
        sampling: str = "choice",
        flip: str = "horizontal",
        method: str = "pil",
    ) -> None:
        """
        Args:
            short_sides: px to draw from; for `range` the lowest and the highest.
            max_size: the long side's limit px.
            sampling: `choice` or `range` (whole numbers, both ends included).
            flip: none, horizontal or vertical; done to half of the images.
            method: of `resize_image`.

        Raises:
            ConfigError: a value that is unknown or cannot work.
        """
        for key, value, known in (
            ("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, SAMPLINGS),
            ("INPUT.RANDOM_FLIP", flip, FLIPS),
            ("INPUT.RESIZE", method, RESIZE_METHODS),
        ):
            if value not in known:
                raise ConfigError(f"{key} '{value}' is unknown: use one of {', '.join(known)}.")
        sides = tuple(short_sides)
        if not sides or min(sides) < 0 or (sampling == "range" and (len(sides) != 2 or not 0 < sides[0] <= sides[1])):
            form = "two sizes, the lower first" if sampling == "range" else "sizes in px (0 leaves images as they are)"
            raise ConfigError(f"INPUT.MIN_SIZE_TRAIN is {sides}; for sampling by {sampling} it must be {form}.")
        if max_size <= 0:
            raise ConfigError(f"INPUT.MAX_SIZE_TRAIN is {max_size}; it must be a number of px above 0.")
        self.short_sides, self.max_size, self.sampling, self.flip, self.method = (
            sides, max_size, sampling, flip, method,
        )  # fmt: skip

    def draw(self, height: int, width: int, random: np.random.Generator) -> Geometry:
        """The geometry of an image of this size. Takes two random numbers, whatever the settings."""
        if self.sampling == "range":
            side = int(random.integers(self.short_sides[0], self.short_sides[1], endpoint=True))
        else:
            side = int(self.short_sides[random.integers(len(self.short_sides))])
        flip = self.flip if random.random() < 0.5 else "none"
        return Geometry((height, width), short_side_size(height, width, side, self.max_size), flip, self.method)
