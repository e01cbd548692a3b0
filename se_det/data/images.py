"""From an image file to pixels: upright, 8 bits, three channels."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import suppress
from functools import cache
from typing import IO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from ..files import open_regular_file
from .sixteen_bit import DARK, PNG_DEPTH_AT, PNG_SIGNATURE, warn_dark

FORMATS = ("BGR", "RGB")
START_OF_JPEG, END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"

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
        with open_regular_file(path) as file:
            return decode(file, format)
    except FileNotFoundError as error:
        raise DataError(f"The image {path} is not there: add the file, or take it out of the annotations.") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on files that are not sound.
    except Exception as error:
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        raise DataError(
            f"The image {path} cannot be read: {decode_error(error, empty=empty)}. Replace the file, or take it out "
            "of the annotations."
        ) from error


def decode(file: IO[bytes], format: str = "RGB") -> np.ndarray:
    """The pixels of an open image file, as `read_image` gives them.

    Ordinary JPEGs are decoded by OpenCV, whose pixels are Pillow's in less time (COCO's 640 x 480 px, one core: 1.6 ms
    where Pillow with the copy out of it takes 2.0). All else is Pillow's: CMYK, EXIF rotation, other formats, and files
    that do not end as a JPEG does, of which OpenCV would paint the missing part grey without a word.

    Raises:
        Exception: of many kinds, as Pillow does on files that are not sound; see `decode_error`.
    """
    start = file.read(len(START_OF_JPEG))
    if start == START_OF_JPEG:
        data = start + file.read()
        pixels = _plain_jpeg(data, format) if _decoders_agree() else None
        if pixels is not None:
            return pixels
        file = io.BytesIO(data)
    else:
        file.seek(0)
        start = file.read(PNG_DEPTH_AT + 1)
        file.seek(0)
    pixels = _by_pillow(file)
    if start[:8] == PNG_SIGNATURE and start[PNG_DEPTH_AT] == 16 and pixels.max(initial=0) <= DARK >> 8:
        warn_dark()
    return pixels if format == "RGB" else pixels[:, :, ::-1]


def _by_pillow(file: IO[bytes]) -> np.ndarray:
    with warnings.catch_warnings():
        # Of a palette with transparency and the like: alpha is left out on purpose.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        # Of half the number of pixels that Pillow refuses (179 million), which satellite images have.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        image = open_image(file)
        # Loading turns a TIFF upright, and takes the orientation out: whoever asks before turns it twice.
        image.load()
        upright = _UPRIGHT.get(exif_orientation(image))
        image = to_rgb(image)
        return np.asarray(image if upright is None else image.transpose(upright))


def open_image(file: IO[bytes]) -> Image.Image:
    """An image file's header; its pixels are not read yet.

    Raises:
        Exception: as `decode`.
    """
    return Image.open(file, formats=readable_formats())


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of `FILES` that this Pillow was built with, and HEIF where the package pillow-heif adds it."""
    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in (*FILES, "HEIF") if name in Image.OPEN)


def _plain_jpeg(data: bytes, format: str) -> np.ndarray | None:
    """The pixels of a whole, upright JPEG, grey or in colour; None of anything else."""
    if not data.rstrip(b"\0").endswith(END_OF_JPEG):
        return None
    with open_image(io.BytesIO(data)) as image:  # the header only; it refuses what would fill the memory
        if image.format != "JPEG" or image.mode not in ("RGB", "L") or exif_orientation(image) in _UPRIGHT:
            return None
        size = image.size
    pixels = _by_opencv(data, format)
    return pixels if pixels is not None and pixels.shape[1::-1] == size else None


def _by_opencv(data: bytes, format: str) -> np.ndarray | None:
    order = cv2.IMREAD_COLOR if format == "BGR" else cv2.IMREAD_COLOR_RGB
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), order | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


@cache
def _decoders_agree() -> bool:
    """Whether OpenCV and Pillow give the same pixels here: not where one of them was built with another libjpeg."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", subsampling=subsampling)
        if not np.array_equal(_by_opencv(file.getvalue(), "RGB"), _by_pillow(file)):
            return False
    return True


def decode_error(error: Exception, *, empty: bool) -> str:
    """What `decode` failed with, in words."""
    if empty:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image of a known format ({', '.join(readable_formats())})"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def exif_orientation(image: Image.Image) -> int | None:
    """EXIF's orientation, 1 to 8; None without a readable one."""
    try:
        value = image.getexif().get(274)
        return value if isinstance(value, int) else None
    except Exception:  # damaged EXIF data: the picture itself may be sound
        return None


def to_rgb(image: Image.Image, *, part: bool = False) -> Image.Image:
    """An image in Pillow's mode RGB; of a `part` of one it is not said that it is dark.

    Raises:
        ValueError: its values have no known range.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known; save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are 32-bit numbers beyond 65535; save it with 8 bits")
        if values.max(initial=0) <= DARK and not part:
            warn_dark()
        image = Image.fromarray((values >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
