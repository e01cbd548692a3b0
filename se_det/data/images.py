"""From an image file to pixels: upright, 8 bits, three channels."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError

FORMATS = ("BGR", "RGB")

# The files that are taken for images, by Pillow's names. Pillow knows more, among them EPS, which it hands to another
# program (Ghostscript) to run. MPO is opened as the JPEG that it begins with.
FILES = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO")

# EXIF tag 274 -> what turns the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | os.PathLike, format: str = "BGR") -> np.ndarray:
    """Read an image as it is to be looked at: EXIF rotation applied, grey and CMYK converted, alpha left out.

    Pixels are Pillow's, and so Detectron2's, but for 16-bit grey, which is scaled to 8 bits where those clip it.

    Args:
        path: a file of one of `FILES`, whatever its name.
        format: BGR or RGB, the order of the channels.

    Returns:
        uint8 (height, width, 3), contiguous or a view with its channels reversed.

    Raises:
        DataError: the file is missing, truncated, or no image.
    """
    try:
        # From open() rather than the path, so that Pillow cannot leave it open.
        with open(path, "rb") as file:
            pixels = decode(file)
    except FileNotFoundError as error:
        raise DataError(f"The image {path} is not there: add the file, or take it out of the annotations.") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on files that are not sound.
    except Exception as error:
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        raise DataError(
            f"The image {path} cannot be read: {what_is_wrong(error, empty=empty)}. Replace the file, or take it out "
            "of the annotations."
        ) from error
    return pixels if format == "RGB" else pixels[:, :, ::-1]


def decode(file: IO[bytes]) -> np.ndarray:
    """The pixels of an open image file, as `read_image` gives them: uint8 (height, width, 3), RGB.

    Raises:
        Exception: of many kinds, as Pillow does on files that are not sound; see `what_is_wrong`.
    """
    with warnings.catch_warnings():
        # Of a palette with transparency and the like: alpha is left out on purpose.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        # Of half the number of pixels that Pillow refuses (179 million), which satellite images have.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        image = open_image(file)
        upright = _UPRIGHT.get(orientation_of(image))
        image = _to_rgb(image)
        return np.asarray(image if upright is None else image.transpose(upright))


def open_image(file: IO[bytes]) -> Image.Image:
    """An image file's header; its pixels are not read yet.

    Raises:
        Exception: as `decode`.
    """
    return Image.open(file, formats=_formats())


@lru_cache
def _formats() -> tuple[str, ...]:
    """Those of `FILES` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FILES if name in Image.OPEN)


def what_is_wrong(error: Exception, *, empty: bool) -> str:
    """What `decode` failed with, in words."""
    if empty:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image of a known format ({', '.join(FILES)})"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def orientation_of(image: Image.Image) -> int | None:
    """EXIF's orientation, 1 to 8; None without a readable one."""
    try:
        value = image.getexif().get(274)
        return value if isinstance(value, int) else None
    except Exception:  # damaged EXIF data: the picture itself may be sound
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known; save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are 32-bit numbers beyond 65535; save it with 8 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
