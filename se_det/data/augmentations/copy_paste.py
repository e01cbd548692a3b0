"""Objects of another image pasted into this one (Ghiasi et al. 2021, arXiv:2012.07177)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..transforms import split_channels
from .arguments import number
from .combining import Pixels, joined, pixels_of, pixels_of_all, windows
from .crop import Crop
from .lazy_image import LazyImage
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
        below = covered(sample, cover, min_visible=self.min_visible)
        if cover.pixels.any():
            below = below.replaced(image=PastedImage(sample.lazy_image, pasted.lazy_image, cover))
        if below.sem_seg is not None:
            labels = below.sem_seg.copy()
            labels[cover.window][cover.pixels] = pasted.sem_seg[cover.window][cover.pixels]
            below = below.replaced(sem_seg=labels)
        return joined([below.replaced(cut=True), pasted.replaced(sem_seg=None)])


class PastedImage(LazyImage):
    """An image with pixels of another of the same size over it. Of the other one little more than these is made."""

    def __init__(self, below: LazyImage, other: LazyImage, cover: Pixels) -> None:
        super().__init__(below.size, lambda: _pasted(below, other, cover))
        self._below, self._other, self._cover = below, other, cover

    def planes(self, out: Sequence[np.ndarray]) -> None:
        if self.made:
            super().planes(out)
            return
        self._below.planes(out)
        part, (rows, columns) = self._other.part(*self._cover.window), self._cover.window
        pasted = np.empty((len(out), *part.shape[:2]), np.uint8)
        split_channels(part, pasted)
        for plane, channel in zip(out, pasted):
            cv2.copyTo(channel, self._cover.pixels.view(np.uint8), plane[rows, columns])


def _pasted(below: LazyImage, other: LazyImage, cover: Pixels) -> np.ndarray:
    result = np.array(below.whole(), order="C")
    part = np.ascontiguousarray(other.part(*cover.window))
    cv2.copyTo(part, cover.pixels.view(np.uint8), result[cover.window])
    return result


def _seen(sample: Sample) -> Sample:
    """Without instances whose box is empty, or whose bitmap is."""
    count = len(sample.boxes)
    boxes = sample.boxes
    if sample.masks is not None:
        masked = sample.masks.owned(count)[:, None]
        boxes = np.where(masked, sample.masks.extents(count), boxes)
    return sample.replaced(boxes=boxes).select(((boxes[:, 2:] - boxes[:, :2]) > EMPTY).all(axis=1))


def covered(sample: Sample, cover: Pixels, *, min_visible: float) -> Sample:
    """A sample whose masks and boxes end where something covers them.

    Args:
        min_visible: an instance of which a smaller share is left, or nothing, is left out.
    """
    count = len(sample.boxes)
    boxes, keep, cut = sample.boxes.copy(), np.ones(count, bool), {}
    for at, window in enumerate(windows(sample)):
        if not cover.inside(window).any():
            continue
        left, part = pixels_of(sample, at, window).pixels, cover.where(window)
        hidden = left[part] & cover.inside(window)
        before, lost = np.count_nonzero(left), np.count_nonzero(hidden)
        if not lost:
            continue
        if lost == before or before - lost < min_visible * before:
            keep[at] = False
            continue
        left[part] ^= hidden
        x0, y0, x1, y1 = bitmap_extent(left)
        seen = np.array([x0, y0, x1, y1]) + np.tile([window[1].start, window[0].start], 2)
        boxes[at, :2], boxes[at, 2:] = np.maximum(boxes[at, :2], seen[:2]), np.minimum(boxes[at, 2:], seen[2:])
        cut[at] = Pixels(window, left)
    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = _hidden(keypoints, cover)
    masks = sample.masks and _cut_masks(sample.masks, cut, sample.size)
    return sample.replaced(boxes=boxes, masks=masks, keypoints=keypoints).select(keep)


def _cut_masks(masks: Masks, cut: dict[int, Pixels], size: tuple[int, int]) -> Masks:
    """The masks, of which those in `cut` are what is left of them."""
    owned = masks.owned(max([*cut, *masks.polygon_owner, *masks.bitmap_owner], default=-1) + 1)
    cut = {at: left for at, left in cut.items() if owned[at]}
    kept_polygons, kept_bitmaps = ~np.isin(masks.polygon_owner, [*cut]), ~np.isin(masks.bitmap_owner, [*cut])
    bitmaps = [masks.bitmaps[at] for at in np.flatnonzero(kept_bitmaps)]
    for left in cut.values():
        bitmap = np.zeros(size, np.uint8)
        bitmap[left.window] = left.pixels
        bitmaps.append(bitmap)
    return Masks(
        polygons=masks.polygons[np.repeat(kept_polygons, masks.polygon_points)],
        polygon_points=masks.polygon_points[kept_polygons],
        polygon_owner=masks.polygon_owner[kept_polygons],
        bitmaps=bitmaps,
        bitmap_owner=np.concatenate([masks.bitmap_owner[kept_bitmaps], np.array([*cut], np.int64)]),
    )


def _hidden(keypoints: np.ndarray, cover: Pixels) -> np.ndarray:
    """Keypoints of which those that are covered are labelled, and not visible: v is 1."""
    rows, columns = cover.window
    x, y = np.floor(keypoints[..., 0]).astype(int) - columns.start, np.floor(keypoints[..., 1]).astype(int) - rows.start
    height, width = cover.pixels.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    hidden = inside & cover.pixels[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    result = keypoints.copy()
    result[..., 2] = np.where(hidden, np.minimum(keypoints[..., 2], 1), keypoints[..., 2])
    return result
