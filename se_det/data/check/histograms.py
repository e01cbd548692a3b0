"""Box sizes and classes of a data set as one picture, with nothing but OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ...canvas import BLACK, GREY, SCALE, draw_text, round_step

BAR, MARK = (180, 119, 31), (40, 39, 214)  # BGR
WIDTH, LEFT, RIGHT = 960, 190, 60
SIZES_HEIGHT, ROW = 330, 17
MAX_CLASSES = 100
EDGES = 2.0 ** np.arange(0, 11.5, 0.5)  # px


def draw_histograms(sides: np.ndarray, classes: Sequence[tuple[str, int]], *, title: str) -> np.ndarray:
    """Histograms of box sizes (on a logarithmic scale) above a bar for each class, most frequent first.

    Args:
        sides: square roots of box areas, px.
        classes: (name, annotations); of more than 100 the first 100 are drawn, and how many others there are is said.
        title: written on top.

    Returns:
        uint8 (height, 960, 3), BGR.
    """
    shown = sorted(classes, key=lambda pair: -pair[1])[:MAX_CLASSES]
    height = SIZES_HEIGHT + 70 + ROW * len(shown) + (ROW if len(classes) > len(shown) else 0)
    canvas = np.full((height * SCALE, WIDTH * SCALE, 3), 255, np.uint8)
    draw_text(canvas, title if len(title) < 110 else f"~{title[-109:]}", (20, 26), scale=0.5)
    _draw_sizes(canvas, sides)
    _draw_classes(canvas, shown, len(classes))
    return cv2.resize(canvas, (WIDTH, height), interpolation=cv2.INTER_AREA)


def _draw_sizes(canvas: np.ndarray, sides: np.ndarray) -> None:
    left, right, top, bottom = 80, WIDTH - 30, 74, SIZES_HEIGHT - 50
    # Below 1 px and above the largest edge belong to the outer bars.
    counts, _ = np.histogram(np.clip(sides, EDGES[0], EDGES[-1] * 0.999), EDGES)
    most = max(int(counts.max()), 1)
    full = most * 1.06  # so that the highest bar keeps off the words above it

    def x_of(side: float) -> float:
        return left + (right - left) * (np.log2(side) - np.log2(EDGES[0])) / (np.log2(EDGES[-1]) - np.log2(EDGES[0]))

    for low, high, name in ((1, 32, "small"), (32, 96, "medium"), (96, EDGES[-1], "large")):
        inside = int(((sides >= (low if low > 1 else 0)) & (sides < (high if high < EDGES[-1] else np.inf))).sum())
        draw_text(canvas, f"{name}: {inside}", ((x_of(low) + x_of(high)) / 2, top - 8), align="middle")
    for tick in _ticks(most):
        y = bottom - (bottom - top) * tick / full
        _rectangle(canvas, (left, y), (right, y + 0.5), GREY)
        draw_text(canvas, str(tick), (left - 8, y + 4), align="right")
    for count, low, high in zip(counts, EDGES[:-1], EDGES[1:]):
        if count:
            y = bottom - max((bottom - top) * count / full, 1)
            _rectangle(canvas, (x_of(low) + 1, y), (x_of(high) - 1, bottom), BAR)
    for side in (32, 96):  # COCO's small, medium and large
        _rectangle(canvas, (x_of(side) - 0.5, top - 20), (x_of(side) + 0.5, bottom), MARK)
    _rectangle(canvas, (left, bottom), (right, bottom + 1), BLACK)
    for side in (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024):
        if side != 96:
            draw_text(canvas, str(side), (x_of(side), bottom + 18), align="middle")
    draw_text(canvas, "boxes: square root of the area, px", ((left + right) / 2, bottom + 38), align="middle")


def _draw_classes(canvas: np.ndarray, shown: Sequence[tuple[str, int]], total: int) -> None:
    top = SIZES_HEIGHT + 40
    draw_text(canvas, "annotations of each class", (20, top - 16), scale=0.5)
    most = max((count for _, count in shown), default=0) or 1
    for row, (name, count) in enumerate(shown):
        y = top + ROW * row
        draw_text(canvas, name if len(name) <= 24 else f"{name[:23]}~", (LEFT - 10, y + 10), align="right")
        length = (WIDTH - RIGHT - LEFT) * count / most
        if count:
            _rectangle(canvas, (LEFT, y + 1), (LEFT + max(length, 1), y + ROW - 4), BAR)
        draw_text(canvas, str(count), (LEFT + length + 6, y + 10))
    if total > len(shown):
        draw_text(canvas, f"and {total - len(shown)} more", (LEFT - 10, top + ROW * len(shown) + 10), align="right")


def _ticks(most: int) -> list[int]:
    """At most six round numbers from 0 on."""
    return list(range(0, most + 1, round_step(most, 5)))


def _rectangle(canvas: np.ndarray, one: tuple[float, float], other: tuple[float, float], color: tuple) -> None:
    corners = [tuple(round(float(value) * SCALE) for value in point) for point in (one, other)]
    cv2.rectangle(canvas, corners[0], (corners[1][0] - 1, max(corners[1][1] - 1, corners[0][1])), color, cv2.FILLED)
