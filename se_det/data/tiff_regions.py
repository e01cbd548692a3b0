"""Windows of a TIFF, of which only the tiles or strips that they lie in are read.

Each of these is given to Pillow as a TIFF of its own, with the tags that say how it is stored. So every compression
that Pillow knows is read, and pixels are those that `read_image` gives of the whole file.
"""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .images import to_rgb

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0")  # the last is BigTIFF; Pillow reads it in this byte order alone
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, ORIENTATION = 322, 323, 324, 325, 274
# How pixels are stored, and TIFF's type of the tag: 3 is SHORT, 7 is bytes. 266 is the order of bits, 317 the
# predictor, 320 the palette, 338 what alpha is, 339 the kind of numbers, 347 JPEG's tables, 530 its subsampling.
COPIED = {BITS: 3, COMPRESSION: 3, PHOTOMETRIC: 3, SAMPLES: 3, 266: 3, 317: 3, 320: 3, 338: 3, 339: 3, 347: 7, 530: 3}
UNCOMPRESSED, OLD_JPEG, JPEG = 1, 6, 7
YCBCR = 6
# How the stored rows and columns become the image: exchanged, then turned around in x and in y.
TURNED = {2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 0), 6: (1, 1, 0), 7: (1, 1, 1), 8: (1, 0, 1)}
PIECE_BYTES = 2**22  # uncompressed strips are read in pieces of about this
MOST_BYTES = 2**27  # of a tile or strip when it is decoded; a file with larger ones is read as a whole
KEPT_BYTES = 3 * 2**26  # of decoded tiles and strips, as neighbouring windows share them


class _Segment(NamedTuple):
    """A tile, a strip, or a piece of a strip.

    Attributes:
        x, y: of its first pixel in the image as it is stored.
        width, height: px as they are coded; a tile may reach beyond the image.
        offset, count: of its bytes in the file.
    """

    x: int
    y: int
    width: int
    height: int
    offset: int
    count: int


class TiffRegions:
    """A TIFF whose windows are read one by one.

    Attributes:
        height, width: px of the image as it is shown.
    """

    def __init__(self, file: IO[bytes], format: str) -> None:
        """
        Args:
            file: open; it is closed by `close`.
            format: BGR or RGB.

        Raises:
            ValueError: it is no TIFF whose parts can be read by themselves; nothing is wrong with it otherwise.
            Exception: of many kinds, where it is damaged.
        """
        head = file.read(8)
        if head[:4] not in SIGNATURES:
            raise ValueError("it is no TIFF")
        if head[2] == 43:
            head += file.read(8)
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        self._file, self._format, self._order = file, format, "<" if head[:2] == b"II" else ">"
        self._stored = int(tags[HEIGHT]), int(tags[WIDTH])
        self._turned = TURNED.get(tags.get(ORIENTATION, 1), (0, 0, 0))
        self.height, self.width = self._stored[::-1] if self._turned[0] else self._stored
        self._how = {tag: (kind, tags[tag]) for tag, kind in COPIED.items() if tag in tags}
        samples, compression = int(tags.get(SAMPLES, 1)), int(tags.get(COMPRESSION, UNCOMPRESSED))
        if samples > 1 and tags.get(PLANAR, 1) != 1:
            raise ValueError("its channels are stored one after another")
        if compression == OLD_JPEG or (compression != JPEG and tags.get(PHOTOMETRIC) == YCBCR):
            raise ValueError("its colours are stored in a form that is read as a whole")
        bits = np.atleast_1d(tags.get(BITS, 1))
        bits_per_pixel = int(bits.sum()) if len(bits) == samples else int(bits[0]) * samples
        if TILE_OFFSETS in tags:
            self._grid = _Tiles(self._stored, tags)
        else:
            self._grid = _Strips(self._stored, tags, bits_per_pixel, split=compression == UNCOMPRESSED)
        if 3 * self._grid.largest > MOST_BYTES:
            raise ValueError("its tiles or strips are too large to be read one by one")
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._kept_bytes = 0
        self._segment(0)  # what Pillow cannot read is told now

    def read(self, window: Sequence[int]) -> np.ndarray:
        """uint8 (y1 - y0, x1 - x0, 3) of the window x0, y0, x1, y1 px.

        Raises:
            Exception: of many kinds, as Pillow's on files that are not sound.
        """
        x0, y0, x1, y1 = map(int, window)
        exchanged, around_x, around_y = self._turned
        if around_x:
            x0, x1 = self.width - x1, self.width - x0
        if around_y:
            y0, y1 = self.height - y1, self.height - y0
        if exchanged:
            x0, y0, x1, y1 = y0, x0, y1, x1
        pixels = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for number in self._grid.of(x0, y0, x1, y1):
            place, part = self._grid[number], self._segment(number)
            left, top = max(place.x, x0), max(place.y, y0)
            right, bottom = min(place.x + place.width, x1), min(place.y + place.height, y1)
            pixels[top - y0 : bottom - y0, left - x0 : right - x0] = part[
                top - place.y : bottom - place.y, left - place.x : right - place.x
            ]
        if exchanged:
            pixels = pixels.transpose(1, 0, 2)
        pixels = pixels[:: -1 if around_y else 1, :: -1 if around_x else 1]
        return pixels if self._format == "RGB" else pixels[:, :, ::-1]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def nbytes(self) -> int:
        """What it holds of decoded pixels."""
        return self._kept_bytes

    def _segment(self, number: int) -> np.ndarray:
        """uint8 (height, width, 3) RGB of a tile or strip."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        place = self._grid[number]
        pixels = self._decoded(place)
        self._kept[number] = pixels
        self._kept_bytes += pixels.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def _decoded(self, place: _Segment) -> np.ndarray:
        if not place.count:  # GDAL leaves out tiles without data
            return np.zeros((place.height, place.width, 3), np.uint8)
        self._file.seek(place.offset)
        data = self._file.read(place.count)
        if len(data) < place.count:
            raise OSError("image file is truncated")
        how = {
            **self._how,
            WIDTH: (4, place.width),
            HEIGHT: (4, place.height),
            ROWS_PER_STRIP: (4, place.height),
            STRIP_BYTES: (4, len(data)),
        }
        with Image.open(io.BytesIO(_small_tiff(self._order, how, data)), formats=("TIFF",)) as image:
            image.load()
            return np.asarray(to_rgb(image, part=True))


class _Tiles:
    """Where the tiles of an image lie."""

    def __init__(self, size: tuple[int, int], tags: ImageFileDirectory_v2) -> None:
        self._width, self._height = int(tags[TILE_WIDTH]), int(tags[TILE_HEIGHT])
        self._offsets, self._counts = _many(tags[TILE_OFFSETS]), _many(tags[TILE_BYTES])
        self._across = -(-size[1] // self._width)
        if len(self._offsets) < self._across * -(-size[0] // self._height) or len(self._counts) < len(self._offsets):
            raise OSError("image file is truncated")
        self.largest = self._width * self._height

    def __getitem__(self, number: int) -> _Segment:
        row, column = divmod(number, self._across)
        place = column * self._width, row * self._height, self._width, self._height
        return _Segment(*place, self._offsets[number], self._counts[number])

    def of(self, x0: int, y0: int, x1: int, y1: int) -> list[int]:
        """Those that a window lies in."""
        rows = range(y0 // self._height, -(-y1 // self._height))
        columns = range(x0 // self._width, -(-x1 // self._width))
        return [row * self._across + column for row in rows for column in columns]


class _Strips:
    """Where the strips of an image lie, uncompressed ones cut into smaller ones."""

    def __init__(self, size: tuple[int, int], tags: ImageFileDirectory_v2, bits_per_pixel: int, *, split: bool) -> None:
        height, self._width = size
        rows = min(int(tags.get(ROWS_PER_STRIP, height)), height)
        offsets, counts = _many(tags[STRIP_OFFSETS]), _many(tags[STRIP_BYTES])
        strips = -(-height // rows)
        if len(offsets) < strips or len(counts) < strips:
            raise OSError("image file is truncated")
        row_bytes = -(-self._width * bits_per_pixel // 8)
        step = min(rows, max(PIECE_BYTES // row_bytes, 1)) if split else rows
        self._pieces: list[tuple[int, int, int, int]] = []  # first row, rows, offset, bytes
        for strip in range(strips):
            last = min((strip + 1) * rows, height)
            for first in range(strip * rows, last, step):
                number = min(step, last - first)
                if split:
                    place = offsets[strip] + (first - strip * rows) * row_bytes, number * row_bytes
                else:
                    place = offsets[strip], counts[strip]
                self._pieces.append((first, number, *place))
        self._firsts = np.array([piece[0] for piece in self._pieces])
        self.largest = self._width * step

    def __getitem__(self, number: int) -> _Segment:
        first, rows, offset, count = self._pieces[number]
        return _Segment(0, first, self._width, rows, offset, count)

    def of(self, x0: int, y0: int, x1: int, y1: int) -> range:
        """Those that a window lies in."""
        first = int(np.searchsorted(self._firsts, y0, side="right")) - 1
        return range(first, int(np.searchsorted(self._firsts, y1)))


def _many(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else value


def _small_tiff(order: str, tags: dict[int, tuple[int, object]], data: bytes) -> bytes:
    """A TIFF of one strip, `data`.

    Args:
        order: of the bytes, as in `struct`.
        tags: number to (TIFF's type: 3, 4 or 7; a number, a row of numbers, or bytes).
    """
    entries, more = [], b""
    start = 8 + 2 + 12 * (len(tags) + 1) + 4  # header, number of entries, entries, end: where `more` begins
    tags = {**tags, STRIP_OFFSETS: (4, None)}
    sizes = {tag: 0 if value is None else len(_packed(order, kind, value)) for tag, (kind, value) in tags.items()}
    data_at = start + sum(size + size % 2 for size in sizes.values() if size > 4)
    for tag, (kind, value) in sorted(tags.items()):
        packed = _packed(order, kind, data_at if value is None else value)
        count = len(packed) // {3: 2, 4: 4, 7: 1}[kind]
        if len(packed) > 4:
            place = struct.pack(f"{order}I", start + len(more))
            more += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + place)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return b"".join((head, *entries, bytes(4), more, data))


def _packed(order: str, kind: int, value: object) -> bytes:
    if kind == 7:
        return bytes(value)
    numbers = np.atleast_1d(value).astype(int).tolist()
    return struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
