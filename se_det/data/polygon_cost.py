"""What drawing a polygon costs, known before it is drawn."""

from __future__ import annotations

import numpy as np

# px. Drawing a polygon takes about 50 bytes for each px of its outline, so at most 210 MB, and under a second.
MAX_OUTLINE = 2**22
CELLS = 2 * 28  # the mask loss draws a box's polygons at 28 x 28, of a proposal half as large at twice the scale
SLIVER = 2**-13  # of the image's long side: boxes narrower than this are drawn as if they were not


def outline_lengths(xy: np.ndarray, first: np.ndarray, xywh: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """float64 (P,): the px that a pen goes along each polygon, in its image or its box blown up, whichever is longer.

    Args:
        xy: (V, 2) vertices px, all finite.
        first: (P,) the first vertex of each polygon.
        xywh: (P, 4) the box of each polygon's annotation px; nan where it is not known.
        sizes: (P, 2) height and width px of its image; nan where they are not known.
    """
    last = np.append(first[1:], len(xy)) - 1
    following = np.roll(xy, -1, axis=0)
    following[last] = xy[first]
    steps = np.abs(following - xy)
    own = np.add.reduceat(steps.max(axis=1), first)
    with np.errstate(invalid="ignore"):
        image = sizes[:, ::-1]
        inside = np.minimum(xywh[:, :2] + xywh[:, 2:], image) - np.maximum(xywh[:, :2], 0)
        sides = np.maximum(inside, image.max(axis=1, keepdims=True) * SLIVER)
        blown_up = np.add.reduceat(steps, first) / sides
    return np.fmax(own, CELLS * blown_up.max(axis=1))
