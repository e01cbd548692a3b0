"""From the bytes of an image to pixels: upright, RGB, 8 bits; or a sentence."""

from __future__ import annotations

import io

import cv2
import numpy as np

from ..data.images import decode, open_image, what_is_wrong
from ..errors import DataError

END_OF_JPEG = b"\xff\xd9"
ORIENTATION = 274  # the EXIF tag


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The pixels, uint8 (height, width, 3), RGB.

    Ordinary JPEGs are decoded by OpenCV (measured: 0.58 ms for 500 x 375 px, torchvision 0.60, Pillow 0.74; the pixels
    are the same). All else is Pillow's: CMYK, alpha, EXIF rotation, other formats, and files that do not end as a JPEG
    does, of which OpenCV would paint the missing part grey without a word.

    Args:
        name: what a sentence calls the image.

    Raises:
        DataError: it is truncated, no image, or of more pixels than any photo (Pillow's limit).
    """
    try:
        pixels = _plain_jpeg(data)
        return decode(io.BytesIO(data)) if pixels is None else pixels
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise DataError(
            f"The image {name} cannot be read: {what_is_wrong(error, empty=not data)}. Replace it, or take it out of "
            "the data."
        ) from error


def _plain_jpeg(data: bytes) -> np.ndarray | None:
    if not data.rstrip(b"\0").endswith(END_OF_JPEG):
        return None
    with open_image(io.BytesIO(data)) as image:  # the header only; it refuses what would fill the memory
        if image.format != "JPEG" or image.mode not in ("RGB", "L") or image.getexif().get(ORIENTATION, 1) != 1:
            return None
        size = image.size
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return pixels if pixels is not None and pixels.shape[1::-1] == size else None
