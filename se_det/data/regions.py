"""Windows of image files, with as much of a file in memory as its format asks for."""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import open_regular_file
from .images import decode_error, read_image
from .tiff_regions import SIGNATURES, TiffRegions
from .transforms import channelwise, resize_image

LARGE = 10**8  # px: decoded as a whole, an image of so many is told of
OPEN_BYTES = 2**28  # of images that are kept decoded for their next window
OPEN_FILES = 8
EXACT = 2**26  # px: up to here a whole image is resized in one step
REMEDY = "Save it as a tiled TIFF, which is read window by window"

logger = logging.getLogger(__name__)


class Regions(Protocol):
    """An image file whose windows are read.

    Attributes:
        height, width: px of the image as it is shown.
        nbytes: of pixels that it holds.
    """

    height: int
    width: int
    nbytes: int

    def read(self, window: Sequence[int]) -> np.ndarray:
        """uint8 (y1 - y0, x1 - x0, 3) of the window x0, y0, x1, y1 px; maybe a view, not to be written to.

        Raises:
            DataError: that part of the file cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class DecodedRegions:
    """An image that is in memory as a whole."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.nbytes = pixels.nbytes

    def read(self, window: Sequence[int]) -> np.ndarray:
        """See `Regions`."""
        x0, y0, x1, y1 = map(int, window)
        return self._pixels[y0:y1, x0:x1]

    def close(self) -> None:
        """Nothing to let go of."""


class FileRegions:
    """A file that is read in parts, and told of in words where that fails."""

    def __init__(self, path: str | os.PathLike, parts: TiffRegions) -> None:
        self._path, self._parts = path, parts
        self.height, self.width = parts.height, parts.width

    @property
    def nbytes(self) -> int:
        """See `Regions`."""
        return self._parts.nbytes

    def read(self, window: Sequence[int]) -> np.ndarray:
        """See `Regions`."""
        try:
            return self._parts.read(window)
        except Exception as error:  # of many kinds, as in `read_image`
            raise DataError(
                f"The image {self._path} cannot be read in the window {tuple(map(int, window))}: "
                f"{decode_error(error, empty=False)}. Replace the file, or take it out of the annotations."
            ) from error

    def close(self) -> None:
        """See `Regions`."""
        self._parts.close()


def open_regions(path: str | os.PathLike, format: str = "BGR") -> Regions:
    """An image file, opened for its windows: a TIFF is read in parts where it is stored in parts, all else is decoded
    as a whole. The pixels are those of `read_image`.

    Args:
        path: the file.
        format: BGR or RGB.

    Raises:
        DataError: the file is missing, damaged, no image, or too large to be decoded as a whole.
    """
    parts = _in_parts(path, format)
    if parts is not None:
        return FileRegions(path, parts)
    try:
        pixels = read_image(path, format)
    except DataError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise DataError(
                f"The image {path} cannot be decoded as a whole, as its format asks for: {error.__cause__}. {REMEDY}."
            ) from error
        raise
    height, width = pixels.shape[:2]
    if height * width >= LARGE:
        logger.warning(
            "The image %s of %d x %d px was decoded as a whole, as its format asks for: it takes %.1f GB of memory. "
            "%s.", path, width, height, pixels.nbytes / 1e9, REMEDY,
        )  # fmt: skip
    return DecodedRegions(pixels)


def _in_parts(path: str | os.PathLike, format: str) -> TiffRegions | None:
    """None for a file that is to be read as a whole, where its faults are found as well."""
    with suppress(Exception):
        file = open_regular_file(path)
        try:
            if file.read(4) in SIGNATURES:
                file.seek(0)
                return TiffRegions(file, format)
        except Exception:
            file.close()
            raise
        file.close()
    return None


def read_whole(image: Regions, height: int, width: int, *, method: str) -> np.ndarray:
    """uint8 (height, width, 3): the whole image, made that small. Of a large one the means of squares are taken first,
    strip by strip, so that it is never in memory.

    Args:
        method: see `resize_image`.
    """
    factor = 1
    if image.height * image.width > EXACT:
        factor = max(min(image.height // height, image.width // width) // 2, 1)
    if factor == 1:
        return resize_image(image.read((0, 0, image.width, image.height)), height, width, method=method)
    return resize_image(reduced(image, factor), height, width, method=method)


def reduced(image: Regions, factor: int) -> np.ndarray:
    """uint8, `factor` times smaller, rounded up: each pixel is the mean of a square, which the last ones fill up."""
    strips = []
    rows = factor * max(2**24 // (image.width * factor), 1)
    for top in range(0, image.height, rows):
        strip = image.read((0, top, image.width, min(top + rows, image.height)))
        strips.append(channelwise(strip, lambda pixels: mean_of_squares(pixels, factor)))
    return np.concatenate(strips)


def read_at_any_size(path: str | os.PathLike, format: str = "BGR") -> np.ndarray:
    """As `read_image`; of an image that is too large for it, if it can be read in parts, a smaller one (`reduced`).

    Raises:
        DataError: as `open_regions`.
    """
    try:
        return read_image(path, format)
    except DataError as error:
        if not isinstance(error.__cause__, Image.DecompressionBombError):
            raise
    image = open_regions(path, format)
    try:
        return reduced(image, math.ceil(math.sqrt(image.height * image.width / EXACT)))
    finally:
        image.close()


def mean_of_squares(pixels: np.ndarray, factor: int) -> np.ndarray:
    """uint8 (H, W, 3) to (H / factor, W / factor, 3), rounded up: the last squares repeat the last row and column."""
    height, width = pixels.shape[:2]
    pixels = cv2.copyMakeBorder(pixels, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (pixels.shape[1] // factor, pixels.shape[0] // factor), interpolation=cv2.INTER_AREA)


class OpenImages:
    """Images that were read from last, still open for their next window; a process has its own.

    Args:
        format: BGR or RGB.
    """

    def __init__(self, format: str) -> None:
        self._format = format
        self._open: OrderedDict[str, Regions] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[OpenImages], tuple[str]]:
        return OpenImages, (self._format,)

    def __getitem__(self, path: str | os.PathLike) -> Regions:
        """The image of a file.

        Raises:
            DataError: as `open_regions`.
        """
        if os.getpid() != self._process:  # a worker that was forked, whose parent reads from the same open files
            self._open, self._process = OrderedDict(), os.getpid()
        key = os.fspath(path)
        if key not in self._open:
            self._open[key] = open_regions(path, self._format)
        self._open.move_to_end(key)
        while len(self._open) > 1 and (
            len(self._open) > OPEN_FILES or sum(image.nbytes for image in self._open.values()) > OPEN_BYTES
        ):
            self._open.popitem(last=False)[1].close()
        return self._open[key]
