"""Line plots as PNG, with nothing but OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Ten hues that can be told apart (BGR), then again from the first.
COLOURS = [
    (180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148),
    (75, 86, 140), (194, 119, 227), (127, 127, 127), (34, 189, 188), (207, 190, 23),
]  # fmt: skip
BLACK, GREY, WHITE = (0, 0, 0), (205, 205, 205), (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
SCALE = 2  # drawn so much larger and then shrunk, which smooths lines and letters
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
        _text(canvas, f"{tick:.3g}", (LEFT - 8, y + 4), align="right")
    for position in _ticks(count) if x_names is None else range(count):
        x = at(position, low)[0]
        _line(canvas, [(x, bottom), (x, bottom + 5)], BLACK, 1)
        _text(canvas, str(position) if x_names is None else x_names[position], (x, bottom + 19), align="middle")
    for number, (name, values) in enumerate(series):
        colour, thickness = (BLACK, 1.5) if name == bold else (COLOURS[number % len(COLOURS)], 1.0)
        points = [at(x, min(max(y, low), high)) for x, y in enumerate(values)]
        _line(canvas, points, colour, thickness)
        y = TOP + 10 + 20 * number
        if y < bottom:
            _line(canvas, [(right + 14, y), (right + 38, y)], colour, thickness + 0.5)
            _text(canvas, name if len(name) <= 18 else f"{name[:17]}~", (right + 46, y + 4))
    _line(canvas, [(LEFT, TOP), (LEFT, bottom), (right, bottom)], BLACK, 1)
    _text(canvas, title, (LEFT, 24), scale=0.55)
    _text(canvas, x_label, ((LEFT + right) / 2, height - 10), align="middle")
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV writes upright only: the axis name is drawn on a strip that is turned.
    strip = np.full((22 * SCALE, (bottom - TOP) * SCALE, 3), 255, np.uint8)
    _text(strip, y_label, ((bottom - TOP) / 2, 16), align="middle")
    strip = cv2.rotate(cv2.resize(strip, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA),
                       cv2.ROTATE_90_COUNTERCLOCKWISE)  # fmt: skip
    small[TOP:bottom, 4 : 4 + strip.shape[1]] = strip[: bottom - TOP]
    return small


def _ticks(count: int) -> list[int]:
    """At most nine round positions."""
    step = next(s * 10**e for e in range(9) for s in (1, 2, 5) if (count - 1) / (s * 10**e) <= 8)
    return list(range(0, count, step))


def _line(canvas: np.ndarray, points: Sequence[tuple[float, float]], colour: tuple, thickness: float) -> None:
    bits = 4  # fractions of a pixel
    corners = np.round(np.array(points) * SCALE * 2**bits).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [corners], False, colour, round(thickness * SCALE), cv2.LINE_AA, bits)


def _text(
    canvas: np.ndarray, text: str, place: tuple[float, float], *, align: str = "left", scale: float = 0.42
) -> None:
    text = text.encode("ascii", "replace").decode()  # the font has no others
    (width, _), _ = cv2.getTextSize(text, FONT, scale * SCALE, SCALE)
    x = place[0] * SCALE - {"left": 0, "middle": width / 2, "right": width}[align]
    cv2.putText(canvas, text, (round(x), round(place[1] * SCALE)), FONT, scale * SCALE, BLACK, SCALE, cv2.LINE_AA)
