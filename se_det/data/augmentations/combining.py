"""What augmentations of several samples share: drawing an instance, and samples on one canvas becoming one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..rle import bitmap, decompress_counts
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
    def window(self) -> tuple[float, float, float, float]:
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
    return first.replaced(
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


LARGE = 2**17  # px
Window = tuple[slice, slice]  # rows and columns of an image


@dataclass(frozen=True)
class Pixels:
    """Pixels of an image.

    Attributes:
        window: rows and columns that hold all of them.
        pixels: bool (rows, columns), which of the window.
    """

    window: Window
    pixels: np.ndarray

    def inside(self, window: Window) -> np.ndarray:
        """Which ones of another window's part that both windows share."""
        return self.pixels[_shared(window, self.window)]

    def where(self, window: Window) -> Window:
        """That part, in the other window."""
        return _shared(self.window, window)


def _shared(one: Window, other: Window) -> Window:
    """What two windows share, in px of the other; of no size where they share nothing."""
    result = []
    for first, second in zip(one, other):
        start = max(first.start - second.start, 0)
        result.append(slice(start, max(min(first.stop, second.stop) - second.start, start)))
    return result[0], result[1]


def windows(sample: Sample) -> list[Window]:
    """Of each instance the rows and columns of the image that hold all of it; there may be none.

    Of one with a bitmap these are the whole image's: to know better takes as long as to look.
    """
    (height, width), masks = sample.size, sample.masks
    extents = sample.boxes
    if masks is not None:
        polygons = replace(masks, bitmaps=(), bitmap_owner=masks.bitmap_owner[:0])
        drawn = polygons.owned(len(extents))[:, None]
        extents = np.where(drawn, polygons.extents(len(extents)), extents)
        extents[masks.bitmap_owner] = 0, 0, width, height
    low = np.clip(np.floor(extents[:, :2]), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(extents[:, 2:]), low, [width, height]).astype(int)
    bounds = zip(low[:, 1].tolist(), high[:, 1].tolist(), low[:, 0].tolist(), high[:, 0].tolist())
    return [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in bounds]


def pixels_of(sample: Sample, at: int, window: Window | None = None) -> Pixels:
    """The pixels of an instance: of its mask, or of its box where it has none.

    Args:
        window: of the instance, where it is known.
    """
    rows, columns = window = windows(sample)[at] if window is None else window
    size = rows.stop - rows.start, columns.stop - columns.start
    masks = sample.masks
    if masks is None or not (at in masks.polygon_owner or at in masks.bitmap_owner) or 0 in size:
        return Pixels(window, np.ones(size, bool))
    xy, points = masks.polygons_of(at)
    if len(points):
        result = _filled(xy - [columns.start, rows.start], points, size)
    else:
        result = np.zeros(size, bool)
    for number in np.flatnonzero(masks.bitmap_owner == at):
        result |= masks.bitmaps[number][window].astype(bool)
    return Pixels(window, result)


def pixels_of_all(sample: Sample) -> Pixels:
    """The pixels of all instances together, of which there is one, drawn at once."""
    masks, each = sample.masks, windows(sample)
    rows, columns = (slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*each))
    result = Pixels((rows, columns), np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool))
    masked = np.zeros(len(each), bool) if masks is None else masks.owned(len(each))
    for at in np.flatnonzero(~masked).tolist():
        result.inside(each[at])[:] = True
    if masks is None:
        return result
    for at in range(len(masks.bitmaps)):
        result.pixels[:] |= masks.bitmaps[at][result.window].astype(bool)
    if len(masks.polygon_points):
        low, high = masks.polygons.min(axis=0), masks.polygons.max(axis=0)
        (left, top), (right, bottom) = (
            np.clip(side, 0, sample.size[::-1]).astype(int).tolist() for side in (low, np.ceil(high))
        )
        drawn = result.inside((slice(top, bottom), slice(left, right)))
        if drawn.size:
            drawn |= _filled(masks.polygons - [left, top], masks.polygon_points, drawn.shape)
    return result


def _filled(xy: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W): the union of polygons, filled as COCO does."""
    pieces = np.split(xy, np.cumsum(points)[:-1]) if len(points) > 1 else [xy]
    runs = coco_mask.frPyObjects([piece.ravel().tolist() for piece in pieces], *size)
    merged = coco_mask.merge(runs)
    if size[0] * size[1] < LARGE:
        columns = coco_mask.decode(merged).T
    else:  # a third of the time; of small ones it takes longer
        columns = bitmap(decompress_counts([merged["counts"]])[0], *size).T
    return cv2.transpose(columns).view(bool)  # NumPy takes ten times as long, wherever rows and columns meet
