"""TIFFs written byte by byte: tiles, strips, orders of bytes and predictors that Pillow reads and does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIZES = {3: 2, 4: 4}


def write_tiff(
    path: Path, pixels: np.ndarray, *, tile: tuple[int, int] | None = None, rows: int | None = None, order: str = "<",
    deflate: bool = False, orientation: int = 1, left_out: tuple[int, ...] = (), planar: bool = False,
) -> None:  # fmt: skip
    """Write (H, W) or (H, W, C) of uint8 or uint16; `tile` is (height, width) px; tiles `left_out` have no bytes."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    pixels = pixels.reshape(height, width, channels)
    bits = 8 * pixels.dtype.itemsize
    parts = []
    for plane in np.moveaxis(pixels, 2, 0)[..., None] if planar else [pixels]:
        if tile is not None:
            padded = np.pad(plane, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)))
            parts += [
                padded[y : y + tile[0], x : x + tile[1]]
                for y in range(0, height, tile[0])
                for x in range(0, width, tile[1])
            ]
        else:
            step = rows or height
            parts += [plane[y : y + step] for y in range(0, height, step)]
    data = [part.astype(part.dtype.newbyteorder(order)).tobytes() for part in parts]
    data = [b"" if at in left_out else zlib.compress(one) if deflate else one for at, one in enumerate(data)]
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [8 if deflate else 1]),
        262: (3, [2 if channels >= 3 else 1]), 274: (3, [orientation]), 277: (3, [channels]),
        284: (3, [2 if planar else 1]),
    }  # fmt: skip
    if channels == 4:
        tags[338] = (3, [2])
    where = {322: (4, [tile[1]]), 323: (4, [tile[0]])} if tile else {278: (4, [rows or height])}
    tags |= where
    offsets, counts = (324, 325) if tile else (273, 279)
    tags |= {offsets: (4, [0] * len(data)), counts: (4, [len(one) for one in data])}
    start = 8 + 2 + 12 * len(tags) + 4
    more = sum(len(values) * SIZES[kind] for kind, values in tags.values() if len(values) * SIZES[kind] > 4)
    at, places = start + more, []
    for one in data:
        places.append(at if one else 0)
        at += len(one)
    tags[offsets] = (4, places)
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(packed) > 4:
            entries += struct.pack(f"{order}I", start + len(extra))
            extra += packed
        else:
            entries += packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + extra + b"".join(data))
