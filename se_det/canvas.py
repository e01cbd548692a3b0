"""What pictures of figures are drawn with: text and round steps, with nothing but OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

GREY, BLACK = (205, 205, 205), (0, 0, 0)  # BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX
SCALE = 2  # drawn so much larger and then shrunk, which smooths lines and letters


def draw_text(
    canvas: np.ndarray, text: str, place: tuple[float, float], *, align: str = "left", scale: float = 0.42
) -> None:
    """Write on a canvas that is `SCALE` times as large as the picture.

    Args:
        place: (x, y) px in the picture: where the baseline begins, has its middle or ends, by `align`.
        align: "left", "middle" or "right".
        scale: of the font, in the picture.
    """
    text = text.encode("ascii", "replace").decode()  # the font has no others
    (width, _), _ = cv2.getTextSize(text, FONT, scale * SCALE, SCALE)
    x = place[0] * SCALE - {"left": 0, "middle": width / 2, "right": width}[align]
    cv2.putText(canvas, text, (round(x), round(place[1] * SCALE)), FONT, scale * SCALE, BLACK, SCALE, cv2.LINE_AA)


def round_step(span: int, parts: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that divides `span` into at most `parts`."""
    return next(s * 10**e for e in range(12) for s in (1, 2, 5) if span / (s * 10**e) <= parts)
