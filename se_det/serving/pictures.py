"""From a request's body to pixels, as `predict` reads a file, but never more of them than allowed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..data.images import decode, decode_error, open_image
from .limits import MEGAPIXEL
from .refusal import Refusal


def read_picture(body: bytes, max_pixels: int) -> np.ndarray:
    """The pixels of an image file, upright.

    Returns:
        uint8 (height, width, 3), BGR.

    Raises:
        Refusal: 400, it is no image, or a damaged one; 413, its header declares more pixels.
    """
    if not body:
        raise Refusal(400, "The request has no body: send an image file, as it is or in a form.")
    try:
        with open_image(io.BytesIO(body)) as image:  # the header only
            width, height = image.size
        if width * height > max_pixels:
            raise Refusal(
                413,
                f"The image has {width} x {height} px, and at most {max_pixels / MEGAPIXEL:g} million are taken: send "
                "a smaller one.",
            )
        return decode(io.BytesIO(body), "BGR")
    except Refusal:
        raise
    except Image.DecompressionBombError as error:
        limit = min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
        raise Refusal(
            413, f"The image has more than the {limit / MEGAPIXEL:g} million px that are taken: send a smaller one."
        ) from error
    except Exception as error:  # Pillow's decoders raise of many kinds, see `read_image`
        raise Refusal(400, f"The image cannot be read: {decode_error(error, empty=False)}.") from error
