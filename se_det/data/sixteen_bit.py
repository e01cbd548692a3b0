"""Images of 16 bits a channel: reading shifts them to 8, which leaves little of data that uses fewer bits."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import cache
from typing import IO

import cv2
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24  # of the file: bits a channel
MAYBE_DEEP = (b"II*\0", b"MM\0*", b"P5", b"P6", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")  # TIFF, PGM, PPM, JPEG 2000
BITS_PER_SAMPLE = 258  # TIFF's tag
# What the largest value of a set may stand for, by the bits of the camera: 8, 10, 12, 14, 16.
FULL_SCALES = (255, 1023, 4095, 16383, 65535)
DARK = FULL_SCALES[-2]  # values up to here leave two of the 16 bits unused

logger = logging.getLogger(__name__)


def read_deep(path: str | os.PathLike) -> np.ndarray | None:
    """The values of a file of 16 bits a channel, as they are stored; None of any other file.

    Returns:
        uint16 (H, W) or (H, W, 3) RGB, not turned upright.
    """
    with open(path, "rb") as file:
        start = file.read(PNG_DEPTH_AT + 1)
        if start.startswith(PNG_SIGNATURE):
            deep = start[PNG_DEPTH_AT:] == b"\x10"
        else:
            deep = start.startswith(MAYBE_DEEP) and _is_deep(file)
        if not deep:
            return None
        file.seek(0)
        data = np.frombuffer(file.read(), np.uint8)
    try:
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if values is None or values.dtype != np.uint16:
        return None
    if values.ndim == 2:
        return values
    return values[:, :, 0] if values.shape[2] < 3 else values[:, :, 2::-1]


def _is_deep(file: IO[bytes]) -> bool:
    from .images import open_image  # which tells of dark images itself

    file.seek(0)
    with suppress(Exception):  # of many kinds, on files that are not sound
        image = open_image(file)
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, ())
        return image.mode.startswith("I;16") or (image.mode != "F" and 16 in np.atleast_1d(bits))
    return False


def full_scale(largest: int) -> int:
    """The value that white stands for in data whose largest value is `largest`."""
    return next(scale for scale in FULL_SCALES if largest <= scale)


def to_8_bits(values: np.ndarray, scale: int) -> np.ndarray:
    """uint16 values with `scale` for white as uint8."""
    return np.rint(values.astype(np.float32) * (255 / scale)).clip(0, 255).astype(np.uint8)


@cache
def warn_dark() -> None:
    """Say once that images of 16 bits are nearly black once they are shifted."""
    logger.warning(
        "An image of 16 bits a channel has no value above %d of 65535, so that next to nothing is left of it when it "
        "is shifted to 8 bits. `se-det check-data` says the largest value of a set, and with --fix OUT writes copies "
        "that are scaled.", DARK,
    )  # fmt: skip
