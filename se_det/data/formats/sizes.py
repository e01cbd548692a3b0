"""Sizes of images from their headers, read by threads, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...errors import DataError, SeDetError
from ...files import open_regular_file, write_json
from ...weights.download import cache_folder
from ..images import decode_error, exif_orientation, open_image
from ..regions import open_regions

VERSION = 1
KEPT_FROM = 200  # images: fewer are read faster than anyone looks
THREADS = 8
TURNED = (5, 6, 7, 8)  # EXIF orientations whose sides change places

logger = logging.getLogger(__name__)


class ImageSize(NamedTuple):
    """Width and height px as the file stores them, and EXIF's orientation, 1 to 8."""

    stored_width: int
    stored_height: int
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height px of the image as it is looked at."""
        turned = self.orientation in TURNED
        return (self.stored_height, self.stored_width) if turned else (self.stored_width, self.stored_height)


class ImageSizes:
    """Sizes of image files, each header read once, and not again while its file keeps its length and time.

    Args:
        root: the data set's folder, which the sizes are kept by.
    """

    def __init__(self, root: Path) -> None:
        self._place = cache_folder() / "image_sizes" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
        self._sizes: dict[Path, ImageSize | str] = {}
        self._kept: dict[str, list[int]] | None = None

    def load(self, paths: Iterable[Path]) -> None:
        """Read the headers of all these files; faults are told when a size is asked for."""
        wanted = [path for path in dict.fromkeys(paths) if path not in self._sizes]
        if len(wanted) < KEPT_FROM:
            self._sizes.update((path, _read(path)[0]) for path in wanted)
            return
        kept = self._read_kept()
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda path: _read(path, kept.get(str(path))), wanted, chunksize=64)
            new = False
            for path, (size, entry) in zip(wanted, found):
                self._sizes[path] = size
                if entry is not None and kept.get(str(path)) != entry:
                    kept[str(path)], new = entry, True
        if new:
            try:
                write_json(self._place, {"version": VERSION, "files": kept})
            except (OSError, SeDetError) as error:
                logger.info("The sizes of the images are not kept for the next time: %s", error)

    def __getitem__(self, path: Path) -> ImageSize:
        """The size of one image.

        Raises:
            DataError: the file is no image that can be read.
        """
        if path not in self._sizes:
            self.load([path])
        found = self._sizes[path]
        if isinstance(found, str):
            raise DataError(f"The image {path} cannot be read: {found}. Replace the file, or remove it.")
        return found

    def _read_kept(self) -> dict[str, list[int]]:
        if self._kept is None:
            self._kept = {}
            try:
                with open_regular_file(self._place) as file:
                    content = json.loads(file.read())
                if content["version"] == VERSION:
                    self._kept = {name: entry for name, entry in content["files"].items() if _is_entry(entry)}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                pass  # none, or of another version, or damaged: read anew
        return self._kept


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 5 and all(type(v) is int for v in entry) and min(entry[2:]) > 0


def _read(path: Path, kept: list[int] | None = None) -> tuple[ImageSize | str, list[int] | None]:
    """The size, or what is wrong; and what to keep: length, time, width, height, orientation."""
    try:
        state = os.stat(path)
        if kept is not None and kept[:2] == [state.st_size, state.st_mtime_ns]:
            return ImageSize(*kept[2:]), kept
        with open_regular_file(path) as file, open_image(file) as image:
            orientation = exif_orientation(image)
            width, height = image.size
            if image.format == "TIFF" and orientation in TURNED:  # Pillow gives a TIFF's sides as they are shown
                width, height = height, width
            size = ImageSize(width, height, orientation if orientation in range(1, 9) else 1)
        return size, [state.st_size, state.st_mtime_ns, *size]
    except Exception as error:  # of Pillow, of many kinds
        if isinstance(error, Image.DecompressionBombError):
            with suppress(DataError):
                image = open_regions(path)  # one that is read in parts may have any size
                image.close()
                size = ImageSize(image.width, image.height, 1)
                return size, [state.st_size, state.st_mtime_ns, *size]
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        return decode_error(error, empty=empty), None
