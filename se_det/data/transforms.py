"""Pixels: the size that an image is resized to, resizing it, and making a tensor of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import torch
from PIL import Image

from ..errors import ConfigError
from ..internals.shared_memory import empty_shared

RESIZE_METHODS = ("pil", "fast")  # see `resize_image`


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
    return channelwise(pixels, lambda forward: _RESIZE[method](forward, height, width))


def _pil_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _fast_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return torch_resized(pixels, size=(height, width))


def torch_resized(pixels: np.ndarray, **target: tuple[float, float]) -> np.ndarray:
    """uint8 (H, W, 3) by torch's filter to a `size`, or by a `scale_factor`, of rows and columns."""
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch warns of memory that it must not write to
    # The batch comes first and the channels are permuted then: with the strides of (N, H, W, 3) torch takes its kernel
    # for interleaved channels (0.9 ms to 800 x 1067 px), which `permute(2, 0, 1)[None]` does not (2.2 ms).
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(tensor, mode="bilinear", antialias=True, align_corners=False, **target)
    return resized[0].permute(1, 2, 0).numpy()


_RESIZE = {"pil": _pil_resize, "fast": _fast_resize}


def channelwise(pixels: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
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
    tensor = empty_tensor(3, *pixels.shape[:2], shared=shared)
    split_channels(pixels, tensor.numpy())
    return tensor


def split_channels(pixels: np.ndarray, out: Iterable[np.ndarray]) -> None:
    """Write the channels of uint8 (H, W, 3) into three arrays (H, W)."""
    in_order = list(out)
    if pixels.strides[2] < 0:
        pixels, in_order = pixels[:, :, ::-1], in_order[::-1]
    cv2.split(readable(pixels), in_order)  # 0.2 ms for 800 x 1067 px, where NumPy takes 0.8


def readable(pixels: np.ndarray) -> np.ndarray:
    """The same for OpenCV, which takes a window of an image as it is: only other views are copied."""
    whole_pixels = pixels.strides[1] == (1 if pixels.ndim == 2 else pixels.shape[2])
    return pixels if whole_pixels and min(pixels.strides) > 0 else np.ascontiguousarray(pixels)


def empty_tensor(*shape: int, shared: bool = False) -> torch.Tensor:
    """A tensor uint8 of any values; `shared` as in `to_tensor`."""
    tensor = empty_shared(math.prod(shape)) if shared else torch.empty(0, dtype=torch.uint8)
    return tensor.resize_(*shape)
