"""The image files: each is decoded as training would, by several threads (Pillow's decoders let others run)."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...errors import DataError
from ...system import usable_cpus
from ..image_paths import dangling
from ..images import exif_orientation, open_image, read_image
from ..regions import open_regions
from ..sixteen_bit import DARK, full_scale, read_deep
from .findings import Findings
from .image_entries import ImageTable

AT_ONCE = 16  # images a thread is given at a time
ROWS = 256  # of an image too large to be decoded as a whole that are decoded at once

# Pillow's modes that need a word; all others are RGB.
MODE_KINDS = {"1": "grey-image", "L": "grey-image", "LA": "alpha-image", "RGBA": "alpha-image", "PA": "alpha-image",
              "RGBa": "alpha-image", "La": "alpha-image", "P": "palette-image", "CMYK": "cmyk-image",
              "I": "16-bit-image"}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """What a file turned out to be.

    Attributes:
        fault: None, or the kind of the fault that keeps it from being used.
        detail: of the fault.
        size: (height, width) px as it is shown, after EXIF rotation.
        orientation: EXIF's; 1 is upright.
        digest: of its pixels.
        largest: of its values, where it has 16 bits a channel; else None.
    """

    __slots__ = ("alpha", "detail", "digest", "fault", "frames", "largest", "mode", "orientation", "size")
    fault: str | None
    detail: str
    size: tuple[int, int]
    mode: str
    alpha: bool
    orientation: int
    frames: int
    digest: bytes
    largest: int | None


def decode_all(
    folder: Path, names: Sequence[str | None], *, threads: int | None = None, title: str = "images"
) -> list[Picture | None]:
    """Decode every file; None for an image without a name. Memory: about two decoded images per thread.

    Args:
        threads: None is one for each CPU that this process may use.
    """
    threads = threads or usable_cpus()
    found: list[Picture | None] = [None] * len(names)

    def work(first: int) -> int:
        last = min(first + AT_ONCE, len(names))
        for at in range(first, last):
            name = names[at]
            if name is not None:
                found[at] = inspect(folder, name)
        return last - first

    # Warnings' filters are the whole process's, so they are set once and not by each thread.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool, tqdm(
        total=len(names), unit="image", desc=title, disable=None
    ) as bar:  # fmt: skip
        warnings.simplefilter("ignore")
        try:
            for done in pool.map(work, range(0, len(names), AT_ONCE)):
                bar.update(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def inspect(folder: Path, name: str) -> Picture:
    """Decode one file."""
    path = folder / name
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        what = dangling(path, "the file is not there") if missing else f"the file cannot be looked at: {error}"
        return _faulty("missing-file" if missing else "unreadable-image", what)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
        return _faulty("unreadable-image", "it is no file")
    try:
        pixels = read_image(path, "RGB")
        with open(path, "rb") as file:
            image = open_image(file)
            mode, orientation = image.mode, exif_orientation(image) or 1
            alpha, frames = "transparency" in image.info, _frames(image)
    except DataError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            return _inspect_in_parts(path)
        return _unreadable(error)
    except Exception as error:
        return _faulty("unreadable-image", f"it cannot be read: {error}")
    deep = read_deep(path)
    if deep is not None:  # two of them may be equally black in 8 bits
        digest = _digest(deep)
        return Picture(None, "", pixels.shape[:2], mode, alpha, orientation, frames, digest, int(deep.max()))
    return Picture(None, "", pixels.shape[:2], mode, alpha, orientation, frames, _digest(pixels), None)


def _inspect_in_parts(path: Path) -> Picture:
    """An image too large to be decoded as a whole: it is of use in windows, if it can be read in parts."""
    try:
        image = open_regions(path, "RGB")
        digest = hashlib.blake2b(digest_size=16)
        for top in range(0, image.height, ROWS):
            rows = image.read((0, top, image.width, min(top + ROWS, image.height)))
            digest.update(np.ascontiguousarray(rows))
        image.close()
    except DataError as error:
        return _unreadable(error)
    return Picture(None, "", (image.height, image.width), "RGB", False, 1, 1, digest.digest(), None)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16, salt=b"%d" % pixels.shape[1]).digest()


def largest_deep_value(pictures: Sequence[Picture | None]) -> int | None:
    """The largest value of all images of 16 bits; None without any."""
    return max((p.largest for p in pictures if p is not None and p.largest is not None), default=None)


def check_pictures(images: ImageTable, pictures: Sequence[Picture | None], findings: Findings) -> None:
    """Faults of the files, sizes against those declared, modes, and files of equal pixels."""
    first: dict[tuple[bytes, tuple[int, int]], int] = {}
    largest = largest_deep_value(pictures)
    if largest is not None and largest <= DARK:
        bits = full_scale(largest).bit_length()
        findings.add("16-bit-range", f"the largest value of all images of 16 bits is {largest} (of 65535), which "
                     f"becomes {largest >> 8} in 8 bits: the data is of {bits} bits")  # fmt: skip
    for at, picture in enumerate(pictures):
        if picture is None:
            continue
        place = {"part": "images", "at": at, "id": images.ids[at], "file": images.names[at]}
        if picture.fault:
            findings.add(picture.fault, picture.detail, **place)
            continue
        _check_size(images.sizes[at], picture, place, findings)
        kind = "16-bit-image" if picture.largest is not None else MODE_KINDS.get(picture.mode)
        if kind:
            largest_here = "" if picture.largest is None else f", its largest value {picture.largest}"
            findings.add(kind, f"its mode is {picture.mode}{largest_here}", **place)
        if picture.alpha and kind != "alpha-image":
            findings.add("alpha-image", "one of its colours is transparent", **place)
        if picture.frames > 1:
            findings.add("several-frames", f"it has {picture.frames} frames", **place)
        earlier = first.setdefault((picture.digest, picture.size), at)
        if earlier != at and images.names[earlier] != images.names[at]:
            findings.add("duplicate-image", f"has the pixels of image {images.ids[earlier]!r} "
                         f"({images.names[earlier]!a})", **place)  # fmt: skip


def _check_size(declared: np.ndarray, picture: Picture, place: dict, findings: Findings) -> None:
    height, width = picture.size
    swapped = picture.orientation >= 5
    if np.isfinite(declared).all() and tuple(declared) != picture.size:
        text = f"the file is {width} x {height}, declared is {declared[1]:.0f} x {declared[0]:.0f} (width x height)"
        if swapped and tuple(declared) == (width, height):
            findings.add("exif-swapped", f"{text}: the size before its EXIF rotation ({picture.orientation})", **place)
        else:
            findings.add("size-differs", text, **place)
    elif 2 <= picture.orientation <= 8:
        findings.add("exif-orientation", f"EXIF orientation {picture.orientation}", **place)


def _unreadable(error: DataError) -> Picture:
    text = str(error)
    reason = text.partition(" cannot be read: ")[2].partition(". Replace the file")[0]
    if not reason and isinstance(error.__cause__, DataError):
        return _faulty("unreadable-image", "it cannot be " + text.partition(" cannot be ")[2].rstrip("."))
    reason = reason or text
    kind = "truncated-image" if _ends_early(reason) else "unreadable-image"
    return _faulty(kind, f"it cannot be read: {reason}")


def _ends_early(reason: str) -> bool:
    words = ("truncated", "broken data stream", "unexpected end", "not enough image data", "buffer is not large")
    return any(word in reason.lower() for word in words)


def _faulty(kind: str, detail: str) -> Picture:
    return Picture(kind, detail, (0, 0), "", False, 1, 1, b"", None)


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the first frame was read, whatever the others are
        return 1
