"""Windows of images too large to be looked at as a whole: one plan for training, evaluation and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fvcore.common.config import CfgNode

from .coco_dataset import CocoDataset

PAIRS_AT_ONCE = 2**20  # of windows and boxes that are compared: what bounds the memory


@dataclass(frozen=True)
class Tiling:
    """How images are cut into windows.

    Attributes:
        size: px, of both sides; an image's side that is shorter is not cut.
        overlap: the least share of `size` that windows beside each other have in common, below 1.
    """

    size: int
    overlap: float

    def windows(self, height: int, width: int) -> np.ndarray:
        """int64 (n, 4) XYXY px: the windows of an image, row by row. Together they show every pixel; all are of one
        size, the first begins and the last ends with the image, and those between are evenly spread."""
        left, top = (_starts(length, self.size, int(self.size * self.overlap)) for length in (width, height))
        x, y = np.tile(left, len(top)), np.repeat(top, len(left))
        return np.stack([x, y, x + min(self.size, width), y + min(self.size, height)], axis=1)


def _starts(length: int, size: int, shared: int) -> np.ndarray:
    if length <= size:
        return np.zeros(1, np.int64)
    steps = -(-(length - size) // (size - shared))
    return np.arange(steps + 1) * (length - size) // steps


def tiling(section: CfgNode) -> Tiling | None:
    """What INPUT.TILE or TEST.TILE says; None where images are looked at as a whole."""
    return Tiling(section.SIZE, section.OVERLAP) if section.SIZE else None


def shown_boxes(
    boxes: np.ndarray, windows: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of a window and a box that it shows a part of, by window.

    Args:
        boxes: (n, 4) XYXY px; what lies outside of the image is no part of them.
        windows: (w, 4).
        size: (height, width) px of the image.

    Returns:
        int64 (p,) windows, int64 (p,) boxes, float64 (p,) the share of the box's area that is shown, above 0.
    """
    boxes = np.clip(boxes.astype(np.float64), 0, np.array([size[1], size[0]] * 2, np.float64))
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
    window, box, share = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for first in range(0, len(windows), some := max(PAIRS_AT_ONCE // max(len(boxes), 1), 1)):
        part = windows[first : first + some, None]
        sides = np.minimum(boxes[None, :, 2:], part[..., 2:]) - np.maximum(boxes[None, :, :2], part[..., :2])
        shown = sides.clip(min=0).prod(axis=2)
        at, which = np.nonzero(shown)
        window.append(at + first)
        box.append(which)
        share.append(shown[at, which] / areas[which])
    return np.concatenate(window), np.concatenate(box), np.concatenate(share)


def most_objects_in_a_window(dataset: CocoDataset, tiles: Tiling) -> int:
    """The most objects of which a window of the data set's images shows any part; crowds are not counted."""
    most = 0
    for i, (height, width) in enumerate(dataset.sizes.tolist()):
        boxes = dataset.annotations(i, crowds=False, masks=False).boxes
        if len(boxes) > most:
            window, _, _ = shown_boxes(boxes, tiles.windows(height, width), (height, width))
            most = max(most, int(np.bincount(window, minlength=1).max()))
    return most
