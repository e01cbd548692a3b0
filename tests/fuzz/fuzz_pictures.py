"""Image files of many kinds, and ways to damage them."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image, features

HEIGHT, WIDTH = 19, 26
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def saved(image: Image.Image, format: str, **how: Any) -> bytes:
    file = io.BytesIO()
    if "append_images" in how:
        how["append_images"] = [frame.copy() for frame in how["append_images"]]
    image.copy().save(file, format, **how)  # copies: JPEG leaves its settings on what it saved
    return file.getvalue()


@lru_cache
def pictures() -> dict[str, bytes]:
    """A sound file of each kind."""
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    grey, palette, cmyk = rgb.convert("L"), rgb.quantize(16), rgb.convert("CMYK")
    rgba = rgb.copy()
    rgba.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[274] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    found = {
        "jpeg": saved(rgb, "JPEG"), "jpeg progressive": saved(rgb, "JPEG", progressive=True, optimize=True),
        "jpeg grey": saved(grey, "JPEG"), "jpeg cmyk": saved(cmyk, "JPEG"),
        "jpeg exif": saved(rgb, "JPEG", exif=turned),
        "mpo": saved(rgb, "MPO", **frames), "png": saved(rgb, "PNG"), "png grey": saved(grey, "PNG"),
        "png alpha": saved(rgba, "PNG"), "png 16": saved(deep, "PNG"), "png exif": saved(rgb, "PNG", exif=turned),
        "png palette": saved(palette, "PNG", transparency=3), "png bits": saved(rgb.convert("1"), "PNG"),
        "apng": saved(rgb, "PNG", **frames), "bmp": saved(rgb, "BMP"), "bmp palette": saved(palette, "BMP"),
        "gif": saved(palette, "GIF"), "gif moving": saved(rgb, "GIF", **frames), "tiff": saved(rgb, "TIFF"),
        "tiff 16": saved(deep, "TIFF"), "tiff lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"), "tiff cmyk": saved(cmyk, "TIFF"),
        "tiff pages": saved(rgb, "TIFF", **frames),
        "tiff float": saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        "tiff 32": saved(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"),
        "ppm": saved(rgb, "PPM"), "pgm 16": saved(deep, "PPM"), "tga": saved(rgb, "TGA", compression="tga_rle"),
        "ico": saved(rgba, "ICO"),
    }  # fmt: skip
    for name, format, feature in (("webp", "WEBP", "webp"), ("avif", "AVIF", "avif"), ("jp2", "JPEG2000", "jpg_2000")):
        if features.check(feature):
            found[name] = saved(rgb, format)
    if "webp" in found:
        found["webp moving"] = saved(rgba, "WEBP", lossless=True, **frames)
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int, bits: int, color: int, data: bytes) -> bytes:
    """A PNG that declares `width` x `height` and holds `data`."""
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def with_sums(data: bytes) -> bytes:
    """A PNG with the checksum of each chunk made right, so that damage gets beyond it."""
    if not data.startswith(PNG_HEAD):
        return data
    out, at = bytearray(PNG_HEAD), len(PNG_HEAD)
    while at + 12 <= len(data):
        length = min(struct.unpack_from(">I", data, at)[0], len(data) - at - 12)
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return bytes(out) + data[at:]


places = st.integers(0, 200) | st.integers(0, 2**16)
words = st.sampled_from(
    [struct.pack(order + kind, value) for order in "<>" for kind, value in
     [("I", 0), ("I", 1), ("I", 13000), ("I", 65535), ("I", 2**31 - 1), ("I", 2**32 - 1), ("i", -1), ("i", -26),
      ("H", 0), ("H", 1), ("H", 13000), ("H", 2**15), ("H", 2**16 - 1)]]
)  # fmt: skip
damages = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(1, 255)),
    st.tuples(st.just("flip"), places, st.integers(1, 255)),
    st.tuples(st.just("word"), places, words),
    st.tuples(st.just("cut"), places, st.integers(1, 40)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("end"), places, st.none()),
    st.tuples(st.just("again"), places, st.integers(1, 60)),
    st.tuples(st.just("head of"), places, st.sampled_from(sorted(pictures()))),
    st.tuples(st.just("sums"), places, st.none()),
)


def damaged(data: bytes, steps: list[tuple[str, int, Any]]) -> bytes:
    for kind, place, value in steps:
        at = place % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
        elif kind == "word":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "cut":
            data = data[:at] + data[at + value :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "end":
            data = data[:at]
        elif kind == "again":
            data = data[:at] + data[at : at + value] * 50 + data[at:]
        elif kind == "head of":
            data = pictures()[value][:at] + data[at:]
        elif kind == "sums":
            data = with_sums(data)
    return data


def image_files() -> st.SearchStrategy[bytes]:
    """Files: sound ones, damaged ones, PNGs that declare what they do not hold, and any bytes after a known start."""
    sound = st.sampled_from(sorted(pictures())).map(pictures().__getitem__)
    steps = st.lists(damages, min_size=1, max_size=4)
    side = st.sampled_from([0, 1, 5, 19, 4000, 13000, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1])
    huge = st.builds(
        huge_png, side, side, st.sampled_from([1, 2, 8, 16, 7]), st.sampled_from([0, 2, 3, 4, 6, 5]),
        st.binary(max_size=50) | st.just(bytes(1 << 16)),
    )  # fmt: skip
    return st.one_of(
        st.builds(damaged, sound, steps),
        st.builds(damaged, sound, steps),
        st.builds(damaged, sound, steps),
        st.builds(lambda data, done: with_sums(damaged(data, done)), sound, steps),
        sound,
        huge,
        st.builds(lambda data, start, more: data[:start] + more, sound, st.integers(0, 40), st.binary(max_size=300)),
    )
