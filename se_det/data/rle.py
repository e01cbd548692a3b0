"""COCO's run-length encoding: run lengths of 0, 1, 0, ... down the columns of a mask, plain or as text.

Text is read here; it is written by `inference.coco_results`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decompress_counts(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The run lengths of compressed RLEs, all in one go.

    A number is a row of characters of 5 bits above "0", lowest first; 0x20 says that more follow, and 0x10 of the last
    is the sign. From the fourth on, a number is the difference to the last but one.

    Args:
        texts: the compressed `counts`, none of them empty.

    Returns:
        The run lengths int64 of all RLEs one after another, the number of them per RLE int64 (k,), and bool (k,) which
        texts are well-formed; run lengths of the others mean nothing.
    """
    if not len(texts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
    letters = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    lengths = np.array([len(text) for text in texts])
    ends = np.cumsum(lengths)
    valid = np.logical_and.reduceat((letters >= 0) & (letters < 64), ends - lengths)
    last = (letters & 0x20) == 0
    valid &= last[ends - 1]
    last[ends - 1] = True  # so that a torn text does not run into the next
    stops = np.flatnonzero(last)
    starts = np.concatenate(([0], stops[:-1] + 1))
    digit = np.arange(len(letters)) - np.repeat(starts, stops - starts + 1)
    too_long = np.zeros(len(letters), bool)
    too_long[digit > 11] = True  # 60 bits
    valid &= ~np.logical_or.reduceat(too_long, ends - lengths)
    digit = np.minimum(digit, 11)
    values = np.add.reduceat((letters & 0x1F) << (5 * digit), starts)
    values -= np.where(letters[stops] & 0x10, np.int64(1) << (5 * (digit[stops] + 1)), 0)

    owner = np.searchsorted(ends, stops, side="right")
    numbers = np.bincount(owner, minlength=len(texts))
    first = np.cumsum(numbers) - numbers
    place = np.arange(len(values)) - np.repeat(first, numbers)
    # Sums along the chains 1, 3, 5, ... and 2, 4, 6, ... of each RLE; its number 0 stands alone.
    chain = 3 * owner + np.where(place == 0, 0, 2 - place % 2)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    new = np.flatnonzero(np.diff(chain[order], prepend=-1))
    before = np.where(new > 0, sums[new - 1], 0)
    counts = np.empty_like(values)
    counts[order] = sums - np.repeat(before, np.diff(np.append(new, len(values))))
    return counts, numbers, valid


def bitmap(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask uint8 (height, width) of 0 and 1 that run lengths, which sum up to height x width, stand for."""
    ones = np.arange(len(counts), dtype=np.uint8) & 1
    return np.repeat(ones, counts).reshape(width, height).T


def window_bitmap(counts: np.ndarray, height: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """The part of `bitmap` in a window x0, y0, x1, y1 px, of which only the window's columns are made."""
    x0, y0, x1, y1 = window
    ends = np.cumsum(counts, dtype=np.int64)
    first, last = x0 * height, x1 * height
    low, high = np.searchsorted(ends, [first, last - 1], side="right").tolist()
    lengths = np.diff(np.clip(ends[low : high + 1], first, last), prepend=first)
    ones = (np.arange(low, high + 1) & 1).astype(np.uint8)
    return np.repeat(ones, lengths).reshape(x1 - x0, height)[:, y0:y1].T


def window_counts(window: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The run lengths of a mask (height, width) that is 0 but for one window of it.

    Args:
        window: bool (columns, rows), columns first.
        top, left: of the window.
    """
    columns, rows = window.shape
    framed = np.zeros((columns, rows + 2), bool)
    framed[:, 1:-1] = window
    column, row = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), rows + 1)
    borders = (column + left) * height + row + top  # where runs begin and end, in turns
    if rows == height:  # a run that goes on in the next column has neither an end nor a beginning there
        goes_on = np.flatnonzero(borders[1:-1:2] == borders[2::2]) * 2 + 1
        borders = np.delete(borders, [goes_on, goes_on + 1])
    counts = np.diff(borders, prepend=0, append=height * width)
    return counts[:-1] if len(borders) and counts[-1] == 0 else counts
