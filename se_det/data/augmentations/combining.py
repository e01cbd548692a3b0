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
        sem_seg=None if first.sem_seg is None else _joined_labels(samples),
    )


def _joined_labels(samples: Sequence[Sample]) -> np.ndarray:
    """The labels of all; of one that has none nothing is taken."""
    result = samples[0].sem_seg
    for sample in samples[1:]:
        if sample.sem_seg is not None:
            result = np.where(result == sample.ignore, sample.sem_seg, result)
    return result


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


def window_of(sample: Sample, at: int) -> tuple[slice, slice]:
    """Rows and columns of the image that hold all of an instance; there may be none.

    Of an instance with a bitmap these are the whole image's: to know better takes as long as to look.
    """
    (height, width), masks = sample.size, sample.masks
    extent = sample.boxes[at]
    if masks is not None and at in masks.bitmap_owner:
        extent = np.array([0, 0, width, height])
    elif masks is not None and len(xy := masks.polygons_of(at)[0]):
        extent = np.concatenate([xy.min(axis=0), xy.max(axis=0)])
    left, top = np.clip(np.floor(extent[:2]), 0, [width, height]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(extent[2:]), [left, top], [width, height]).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def pixels_of(sample: Sample, at: int) -> tuple[slice, slice, np.ndarray]:
    """The pixels of an instance: of its mask, or of its box where it has none.

    Returns:
        Rows and columns of the window, and bool (rows, columns).
    """
    rows, columns = window_of(sample, at)
    size = rows.stop - rows.start, columns.stop - columns.start
    masks = sample.masks
    if masks is None or not (at in masks.polygon_owner or at in masks.bitmap_owner) or 0 in size:
        return rows, columns, np.ones(size, bool)
    result = np.zeros(size, bool)
    for number in np.flatnonzero(masks.bitmap_owner == at):
        result |= masks.bitmaps[number][rows, columns].astype(bool)
    xy, points = masks.polygons_of(at)
    if len(points):
        result |= _filled(xy - [columns.start, rows.start], points, size)
    return rows, columns, result


def pixels_of_all(sample: Sample) -> np.ndarray:
    """bool (H, W): the pixels of all instances together, drawn at once."""
    result, masks = np.zeros(sample.size, bool), sample.masks
    masked = np.zeros(len(sample.boxes), bool) if masks is None else masks.owned(len(sample.boxes))
    for at in np.flatnonzero(~masked).tolist():
        result[window_of(sample, at)] = True
    if masks is None:
        return result
    for at in range(len(masks.bitmaps)):
        result |= masks.bitmaps[at].astype(bool)
    if len(masks.polygon_points):
        low, high = masks.polygons.min(axis=0), masks.polygons.max(axis=0)
        (left, top), (right, bottom) = (
            np.clip(side, 0, sample.size[::-1]).astype(int) for side in (low, np.ceil(high))
        )
        window = result[top:bottom, left:right]
        if window.size:
            window |= _filled(masks.polygons - [left, top], masks.polygon_points, window.shape)
    return result


def _filled(xy: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W): the union of polygons, filled as COCO does."""
    pieces = np.split(xy, np.cumsum(points)[:-1])
    runs = coco_mask.frPyObjects([piece.ravel().tolist() for piece in pieces], *size)
    return coco_mask.decode(coco_mask.merge(runs)).view(bool)
