"""Objects of another image pasted into this one (Ghiasi et al. 2021, arXiv:2012.07177)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from .arguments import number
from .combining import joined, pixels_of, pixels_of_all, window_of
from .crop import Crop
from .protocol import AUGMENTATIONS, EMPTY, Masks, Sample, bitmap_extent
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class CopyPaste(RandomApply):
    """Each object of another sample is pasted with a probability, where it is there: by its mask, or its box where it
    has none. In the list it stands after what moves objects, such as LargeScaleJitter and RandomFlip.

    What it covers is taken from the masks and boxes of the objects below. A mask that loses something becomes a bitmap;
    all others, the pasted ones too, stay polygons. The pasted image's edge is not blended, as in the paper.

    Args:
        share: the probability of each object.
        min_visible: an object of which a smaller share can still be seen is left out.
        probability: of all of it.

    Raises:
        ConfigError: a value that cannot work.
    """

    partners = 1

    def __init__(self, *, share: float = 0.5, min_visible: float = 0.1, probability: float = 0.5) -> None:
        super().__init__(probability=probability)
        self.share, self.min_visible = (
            number(self, "share", share, 0, 1),
            number(self, "min_visible", min_visible, 0, 1),
        )

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        other = partners[0]
        pasted = other.select(random.random(len(other.boxes)) < self.share)
        if pasted.size != sample.size:
            pasted = pasted.transformed(Crop(pasted.size, 0, 0, sample.size))
        pasted = _seen(pasted)
        if not len(pasted.boxes):
            return sample
        cover = pixels_of_all(pasted)
        image = np.array(sample.image, order="C")
        cv2.copyTo(np.ascontiguousarray(pasted.image), cover.view(np.uint8), image)
        below = covered(replace(sample, image=image), cover, min_visible=self.min_visible)
        if below.sem_seg is not None:
            below = replace(below, sem_seg=np.where(cover, pasted.sem_seg, below.sem_seg))
        return joined([replace(below, cut=True), replace(pasted, sem_seg=None)])


def _seen(sample: Sample) -> Sample:
    """Without instances whose box is empty, or whose bitmap is."""
    count = len(sample.boxes)
    boxes = sample.boxes
    if sample.masks is not None:
        masked = sample.masks.owned(count)[:, None]
        boxes = np.where(masked, sample.masks.extents(count), boxes)
    return replace(sample, boxes=boxes).select(((boxes[:, 2:] - boxes[:, :2]) > EMPTY).all(axis=1))


def covered(sample: Sample, cover: np.ndarray, *, min_visible: float) -> Sample:
    """A sample whose masks and boxes end where something covers them.

    Args:
        cover: bool (H, W).
        min_visible: an instance of which a smaller share is left, or nothing, is left out.
    """
    count = len(sample.boxes)
    boxes, keep, cut = sample.boxes.copy(), np.ones(count, bool), {}
    for at in range(count):
        if not cover[window_of(sample, at)].any():
            continue
        rows, columns, pixels = pixels_of(sample, at)
        left = pixels & ~cover[rows, columns]
        before, after = int(pixels.sum()), int(left.sum())
        if after == before:
            continue
        if after == 0 or after < min_visible * before:
            keep[at] = False
            continue
        x0, y0, x1, y1 = bitmap_extent(left)
        seen = np.array([x0, y0, x1, y1]) + np.tile([columns.start, rows.start], 2)
        boxes[at, :2], boxes[at, 2:] = np.maximum(boxes[at, :2], seen[:2]), np.minimum(boxes[at, 2:], seen[2:])
        cut[at] = rows, columns, left
    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = _hidden(keypoints, cover)
    masks = sample.masks and _cut_masks(sample.masks, cut, sample.size)
    return replace(sample, boxes=boxes, masks=masks, keypoints=keypoints).select(keep)


def _cut_masks(masks: Masks, cut: dict[int, tuple[slice, slice, np.ndarray]], size: tuple[int, int]) -> Masks:
    """The masks, of which those in `cut` are what is left of them."""
    owned = masks.owned(max([*cut, *masks.polygon_owner, *masks.bitmap_owner], default=-1) + 1)
    cut = {at: left for at, left in cut.items() if owned[at]}
    kept_polygons, kept_bitmaps = ~np.isin(masks.polygon_owner, [*cut]), ~np.isin(masks.bitmap_owner, [*cut])
    bitmaps = [masks.bitmaps[at] for at in np.flatnonzero(kept_bitmaps)]
    for rows, columns, left in cut.values():
        bitmap = np.zeros(size, np.uint8)
        bitmap[rows, columns] = left
        bitmaps.append(bitmap)
    return Masks(
        polygons=masks.polygons[np.repeat(kept_polygons, masks.polygon_points)],
        polygon_points=masks.polygon_points[kept_polygons],
        polygon_owner=masks.polygon_owner[kept_polygons],
        bitmaps=bitmaps,
        bitmap_owner=np.concatenate([masks.bitmap_owner[kept_bitmaps], np.array([*cut], np.int64)]),
    )


def _hidden(keypoints: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Keypoints of which those that are covered are labelled, and not visible: v is 1."""
    height, width = cover.shape
    x, y = (np.floor(keypoints[..., axis]).astype(int) for axis in (0, 1))
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    hidden = inside & cover[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    result = keypoints.copy()
    result[..., 2] = np.where(hidden, np.minimum(keypoints[..., 2], 1), keypoints[..., 2])
    return result
