"""A window of a resized image, to the last bit that of all of it, and little else computed."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image

from .transforms import channelwise, resize_image, torch_resized

MARGIN = 2  # px of the image before, that the bilinear filter may see beyond a window when the image grows
LONGEST = 2**14  # px
WORTH = 0.85  # of the resized image's area: a window that is larger takes longer than all of it


def resize_window(
    pixels: np.ndarray, height: int, width: int, rows: slice, columns: slice, *, method: str = "pil"
) -> np.ndarray:
    """`resize_image(pixels, height, width, method=method)[rows, columns]`.

    Both libraries resize along rows, round, and then along columns; so do these two, on what the window needs. Only
    where the image grows: where it shrinks, filters are wider, newer versions of Pillow begin with the columns, and
    there is less to be gained.

    Args:
        rows, columns: of the resized image, from `start` to `stop`.

    Raises:
        ConfigError: an unknown method.
    """
    old_height, old_width = pixels.shape[:2]
    size = rows.stop - rows.start, columns.stop - columns.start
    grows = old_height < height < LONGEST and old_width < width < LONGEST
    if not grows or not 0 < size[0] * size[1] < WORTH * height * width or not _exact(method):
        return resize_image(pixels, height, width, method=method)[rows, columns]
    return channelwise(pixels, lambda forward: _window(forward, height, width, rows, columns, method))


@cache
def _exact(method: str) -> bool:
    """Whether windows are exact here: not where a library in another version takes its steps in another order."""
    if method not in _WINDOWS:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    rows, columns = slice(20, 90), slice(70, 101)
    window = _window(noise, 111, 131, rows, columns, method)
    return np.array_equal(window, resize_image(noise, 111, 131, method=method)[rows, columns])


def _window(pixels: np.ndarray, height: int, width: int, rows: slice, columns: slice, method: str) -> np.ndarray:
    return _WINDOWS[method](pixels, height, width, rows, columns, _source(rows, pixels.shape[0], height))


def _source(window: slice, old: int, new: int) -> slice:
    """The pixels before, of `old`, that a window of `new` is made of."""
    first, last = window.start * old // new - MARGIN, -(-window.stop * old // new) + MARGIN
    return slice(max(first, 0), min(last, old))


def _pil_window(pixels: np.ndarray, height: int, width: int, rows: slice, columns: slice, needed: slice) -> np.ndarray:
    bilinear, old = Image.Resampling.BILINEAR, pixels.shape
    image = Image.fromarray(np.ascontiguousarray(pixels[needed]))
    left, right = _whole_steps(columns, old[1], width)
    box = (left * old[1] / width, 0, right * old[1] / width, image.height)
    wide = image.resize((right - left, image.height), bilinear, box)
    # As high as the image again, with nothing in the rows that are not needed.
    wide = wide.crop((columns.start - left, -needed.start, columns.stop - left, old[0] - needed.start))
    top, bottom = _whole_steps(rows, old[0], height)
    box = (0, top * old[0] / height, wide.width, bottom * old[0] / height)
    high = wide.resize((wide.width, bottom - top), bilinear, box)
    return np.asarray(high.crop((0, rows.start - top, high.width, rows.stop - top)))


def _whole_steps(window: slice, old: int, new: int) -> tuple[int, int]:
    """The least range around a window of `new` px whose ends are, in px before, numbers in single precision.

    Pillow's argument `box` is in single precision, and would move positions elsewhere. Here it moves them by the last
    bit of a double at most, and a weight, m / (2 new) rounded to 22 bits, is no tie that this could break.
    """
    step = new // math.gcd(new, old << (24 - old.bit_length()))
    return window.start // step * step, min(-(-window.stop // step) * step, new)


def _fast_window(pixels: np.ndarray, height: int, width: int, rows: slice, columns: slice, needed: slice) -> np.ndarray:
    wide = _up_to(pixels[needed], 1, width, columns.stop)[:, columns]
    part = np.empty((pixels.shape[0], *wide.shape[1:]), np.uint8)
    part[needed] = wide
    return _up_to(part, 0, height, rows.stop)[rows]


def _up_to(pixels: np.ndarray, axis: int, new: int, stop: int) -> np.ndarray:
    """An image resized along an axis to `new` px, of which those beyond `stop` may be missing.

    The factor in place of the size may move positions by the last bit of a double. A weight is m / (2 new) and rounded
    to 14 bits, so that there is no tie below 2^14 px that this could break.
    """
    old = pixels.shape[axis]
    end = min(-(-stop * old // new) + MARGIN, old)
    factor = new / old
    if int(end * factor) == end:  # torch would take it for no resizing at all
        end = old
    if end == old:
        size = (new, pixels.shape[1]) if axis == 0 else (pixels.shape[0], new)
        return torch_resized(pixels, size=size)
    return torch_resized(
        pixels[:end] if axis == 0 else pixels[:, :end], scale_factor=(factor, 1.0) if axis == 0 else (1.0, factor)
    )


_WINDOWS = {"pil": _pil_window, "fast": _fast_window}
