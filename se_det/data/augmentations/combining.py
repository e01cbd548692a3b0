"""What augmentations of several samples share: drawing an instance, and samples on one canvas becoming one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from .polygon_clip import Window
from .protocol import Masks, Sample


@dataclass(frozen=True)
class Placed:
    """A place on a canvas on which all images have been drawn already.

    Attributes:
        canvas: uint8 (H, W, 3).
        top, left: px.
    """

    canvas: np.ndarray
    top: int
    left: int
    mirrored = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width px."""
        return self.canvas.shape[0], self.canvas.shape[1]

    @property
    def window(self) -> Window:
        """All of the canvas."""
        return 0, 0, self.size[1], self.size[0]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas."""
        return self.canvas

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask on the canvas, which it fits in."""
        result = np.zeros(self.size, np.uint8)
        result[self.top : self.top + mask.shape[0], self.left : self.left + mask.shape[1]] = mask
        return result

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (n, 2)."""
        return xy + np.array([self.left, self.top], np.float64)


def joined(samples: Sequence[Sample]) -> Sample:
    """One sample with the instances of all, which have the same image already: the first one's."""
    first = samples[0]
    return replace(
        first,
        boxes=np.concatenate([sample.boxes for sample in samples]),
        classes=np.concatenate([sample.classes for sample in samples]),
        masks=None if first.masks is None else _joined_masks(samples),
        keypoints=None if first.keypoints is None else np.concatenate([sample.keypoints for sample in samples]),
        cut=any(sample.cut for sample in samples),
    )


def _joined_masks(samples: Sequence[Sample]) -> Masks:
    counts = [len(sample.boxes) for sample in samples]
    first = np.cumsum(counts) - counts
    masks = [sample.masks for sample in samples]
    return Masks(
        polygons=np.concatenate([part.polygons for part in masks]),
        polygon_points=np.concatenate([part.polygon_points for part in masks]),
        polygon_owner=np.concatenate([part.polygon_owner + start for part, start in zip(masks, first)]),
        bitmaps=[part.bitmaps[at] for part in masks for at in range(len(part.bitmaps))],
        bitmap_owner=np.concatenate([part.bitmap_owner + start for part, start in zip(masks, first)]),
    )


def pixels_of(sample: Sample, at: int) -> tuple[slice, slice, np.ndarray]:
    """The pixels of an instance: of its mask, or of its box where it has none.

    Returns:
        Rows and columns of a window of the image that holds them, and bool (rows, columns). The window may be empty.
    """
    (height, width), masks = sample.size, sample.masks
    polygons, bitmaps = ((), ()) if masks is None else (masks.polygon_owner == at, masks.bitmap_owner == at)
    extent = sample.boxes[at]
    if np.any(polygons) or np.any(bitmaps):
        # The image's, where there is a bitmap: that is looked at as a whole anyway.
        xy = masks.polygons[np.repeat(polygons, masks.polygon_points)]
        extent = (0, 0, width, height) if np.any(bitmaps) else (*xy.min(axis=0), *xy.max(axis=0))
    left, top = (max(int(np.floor(side)), 0) for side in extent[:2])
    right, bottom = min(int(np.ceil(extent[2])), width), min(int(np.ceil(extent[3])), height)
    rows, columns = slice(top, max(bottom, top)), slice(left, max(right, left))
    size = rows.stop - rows.start, columns.stop - columns.start
    if not (np.any(polygons) or np.any(bitmaps)) or 0 in size:
        return rows, columns, np.ones(size, bool)
    result = np.zeros(size, bool)
    for number in np.flatnonzero(bitmaps):
        result |= masks.bitmaps[number][rows, columns].astype(bool)
    if np.any(polygons):
        pieces = np.split(xy - [left, top], np.cumsum(masks.polygon_points[polygons])[:-1])
        runs = coco_mask.frPyObjects([piece.ravel().tolist() for piece in pieces], *size)
        result |= coco_mask.decode(coco_mask.merge(runs)).astype(bool)
    return rows, columns, result
