"""From the bytes of an image to pixels: upright, RGB, 8 bits; or a sentence."""

from __future__ import annotations

import io

import numpy as np

from ...data.images import decode, decode_error
from ...errors import DataError


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The pixels, uint8 (height, width, 3), RGB.

    Args:
        name: what a sentence calls the image.

    Raises:
        DataError: it is truncated, no image, or of more pixels than any photo (Pillow's limit).
    """
    try:
        return decode(io.BytesIO(data))
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise DataError(
            f"The image {name} cannot be read: {decode_error(error, empty=not data)}. Replace it, or take it out of "
            "the data."
        ) from error
