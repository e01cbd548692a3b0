"""Line plots as PNG, with nothing but OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..canvas import BLACK, GREY, SCALE, draw_text, round_step

# Ten hues that can be told apart (BGR), then again from the first.
COLORS = [
    (180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148),
    (75, 86, 140), (194, 119, 227), (127, 127, 127), (34, 189, 188), (207, 190, 23),
]  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50


def draw_lines(
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] = (0.0, 1.0),
    bold: str = "",
    x_names: Sequence[str] | None = None,
    size: tuple[int, int] = (960, 400),
) -> np.ndarray:
    """A plot of named series over 0, 1, 2, ...

    Args:
        series: (name, values), all of one length; drawn in this order.
        bold: the series that is drawn black and thick.
        x_names: a label for each position; by default round numbers.
        size: (width, height) in px.

    Returns:
        uint8 (height, width, 3), BGR.
    """
    width, height = size
    canvas = np.full((height * SCALE, width * SCALE, 3), 255, np.uint8)
    right, bottom = width - RIGHT, height - BOTTOM
    count = len(series[0][1])
    low, high = y_range

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (right - LEFT) * (x / max(count - 1, 1)),
            bottom - (bottom - TOP) * (y - low) / (high - low),
        )

    for tick in np.linspace(low, high, 6):
        y = at(0, tick)[1]
        _line(canvas, [(LEFT, y), (right, y)], GREY, 1)
        draw_text(canvas, f"{tick:.3g}", (LEFT - 8, y + 4), align="right")
    for position in _ticks(count) if x_names is None else range(count):
        x = at(position, low)[0]
        _line(canvas, [(x, bottom), (x, bottom + 5)], BLACK, 1)
        draw_text(canvas, str(position) if x_names is None else x_names[position], (x, bottom + 19), align="middle")
    for number, (name, values) in enumerate(series):
        color, thickness = (BLACK, 1.5) if name == bold else (COLORS[number % len(COLORS)], 1.0)
        points = [at(x, min(max(y, low), high)) for x, y in enumerate(values)]
        _line(canvas, points, color, thickness)
        y = TOP + 10 + 20 * number
        if y < bottom:
            _line(canvas, [(right + 14, y), (right + 38, y)], color, thickness + 0.5)
            draw_text(canvas, name if len(name) <= 18 else f"{name[:17]}~", (right + 46, y + 4))
    _line(canvas, [(LEFT, TOP), (LEFT, bottom), (right, bottom)], BLACK, 1)
    draw_text(canvas, title, (LEFT, 24), scale=0.55)
    draw_text(canvas, x_label, ((LEFT + right) / 2, height - 10), align="middle")
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV writes upright only: the axis name is drawn on a strip that is turned.
    strip = np.full((22 * SCALE, (bottom - TOP) * SCALE, 3), 255, np.uint8)
    draw_text(strip, y_label, ((bottom - TOP) / 2, 16), align="middle")
    strip = cv2.rotate(cv2.resize(strip, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA),
                       cv2.ROTATE_90_COUNTERCLOCKWISE)  # fmt: skip
    small[TOP:bottom, 4 : 4 + strip.shape[1]] = strip[: bottom - TOP]
    return small


def _ticks(count: int) -> list[int]:
    """At most nine round positions."""
    return list(range(0, count, round_step(count - 1, 8)))


def _line(canvas: np.ndarray, points: Sequence[tuple[float, float]], color: tuple, thickness: float) -> None:
    bits = 4  # fractions of a pixel
    corners = np.round(np.array(points) * SCALE * 2**bits).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [corners], False, color, round(thickness * SCALE), cv2.LINE_AA, bits)
