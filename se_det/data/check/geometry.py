"""Boxes and areas against their images and masks: empty, outside, in another convention, far off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .annotation_entries import AnnotationTable
from .findings import Findings
from .image_entries import ImageTable
from .masks import MaskTable

SLACK = 2.0  # px that a box may reach beyond its image, or be off its mask: rounding, and half pixels
AGREE = 0.8  # from this IoU on two boxes are the same but for rounding
DISAGREE = 0.5  # below this IoU with its mask's extent a box is another one
SHARE = 0.95  # of a file's boxes that must fit another convention before all are taken for it


@dataclass
class Conventions:
    """bool (n,) each: which boxes look like corners (XYXY), and which like fractions of the image."""

    corners: np.ndarray
    fractions: np.ndarray


def check_boxes(images: ImageTable, table: AnnotationTable, masks: MaskTable, findings: Findings) -> Conventions:
    """Compare boxes with the images that they lie in and the polygons that they bound."""
    xywh, known = table.xywh, np.isfinite(table.xywh).all(axis=1)
    sizes = np.full((len(xywh), 2), np.nan)
    owned = table.owner >= 0
    sizes[owned] = images.sizes[table.owner[owned]]
    height, width = sizes.T
    with np.errstate(invalid="ignore"):
        empty = known & ((xywh[:, 2] <= 0) | (xywh[:, 3] <= 0))
        corners = _looks_like_corners(table, masks, sizes, known)
        fractions = _looks_like_fractions(masks, xywh, sizes, known & ~empty)
        x, y, w, h = xywh.T
        judged = known & ~empty & ~corners & ~fractions
        outside = judged & ((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
        beyond = (x < -SLACK) | (y < -SLACK) | (x + w > width + SLACK) | (y + h > height + SLACK)
        apart = judged & _iou(as_corners(xywh), masks.extent).__lt__(DISAGREE) & _differ(as_corners(xywh), masks.extent)
    for which, kind, detail in (
        (empty, "box-empty", "bbox {box} has no area"),
        (corners, "box-xyxy", "bbox {box}, read as [x, y, width, height], does not fit; as [x0, y0, x1, y1] it does"),
        (fractions, "box-normalised", "bbox {box} lies in the first pixel of an image of {width} x {height}"),
        (outside, "box-outside", "bbox {box} has no part in its image of {width} x {height}"),
        (judged & ~outside & beyond, "box-sticks-out", "bbox {box} reaches beyond its image of {width} x {height}"),
        (apart & ~outside, "box-off-mask", "bbox {box} is not that of its mask, [x0, y0, x1, y1] {extent}"),
    ):  # fmt: skip
        for at in np.flatnonzero(which):
            side, extent = (_is_integer(width[at]), _is_integer(height[at])), _short(masks.extent[at])
            text = detail.format(box=_short(xywh[at]), width=side[0], height=side[1], extent=extent)
            findings.add(kind, text, part="annotations", at=at, id=table.ids[at])
    return Conventions(corners, fractions)


def check_areas(table: AnnotationTable, masks: MaskTable, conventions: Conventions, findings: Findings) -> np.ndarray:
    """Areas that are off by more than rounding and overlapping polygons explain. Crowds are left alone: their released
    areas differ from their masks'.

    Returns:
        float64 (n,): the area that the mask has, or the box; nan where neither is known.
    """
    xywh = as_boxes(table.xywh, conventions.corners)
    with np.errstate(invalid="ignore"):
        box = np.where((xywh[:, 2:] > 0).all(axis=1), xywh[:, 2] * xywh[:, 3], np.nan)
        outline = 2 * (xywh[:, 2] + xywh[:, 3])
        with_mask = np.isfinite(masks.area)
        expected = np.where(with_mask, masks.area, box)
        least = np.where(with_mask, expected / 2, expected / 100)  # the area of a thin object that only has a box
        most = np.where(with_mask, expected * 2, expected * 1.1)
        wrong = (table.area < least - outline / 2) | (table.area > most + outline / 2)
        wrong |= np.where(with_mask, False, (table.area < least) | (table.area > most + outline))
        wrong &= ~table.crowd & ~conventions.fractions
    for at in np.flatnonzero(wrong):
        of = "mask" if with_mask[at] else "box"
        findings.add("area-off", f"area is {table.area[at]:g}, that of its {of} {expected[at]:g}",
                     part="annotations", at=at, id=table.ids[at])  # fmt: skip
    return expected


def as_corners(xywh: np.ndarray) -> np.ndarray:
    """x, y, width, height to x0, y0, x1, y1."""
    return np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)


def as_boxes(boxes: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """x, y, width, height of boxes of which some are corners."""
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - np.where(corners[:, None], boxes[:, :2], 0)), axis=1)


def _looks_like_corners(table: AnnotationTable, masks: MaskTable, sizes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Boxes that only make sense as corners: by their own mask or area, or as nearly all boxes of the file do."""
    box = table.xywh
    x0, y0, x1, y1 = box.T
    height, width = sizes.T
    possible = known & (x1 > x0) & (y1 > y0) & (x1 <= width + SLACK) & (y1 <= height + SLACK)
    possible &= (x0 >= -SLACK) & (y0 >= -SLACK)
    beyond = (x0 + x1 > width + SLACK) | (y0 + y1 > height + SLACK)
    by_mask = _iou(box, masks.extent) >= AGREE
    by_mask &= _iou(as_corners(box), masks.extent) < DISAGREE
    area = (x1 - x0) * (y1 - y0)
    by_area = ~np.isfinite(masks.extent[:, 0]) & beyond & (np.abs(table.area - area) <= 0.02 * area)
    found = possible & (by_mask | by_area)
    # Corners are always ordered; widths and heights are larger than x and y in only a part of a file. Where nothing
    # speaks against it and some boxes do not fit otherwise, all are corners.
    judged = known & np.isfinite(width) & np.isfinite(height)
    against = np.isfinite(masks.extent[:, 0]) & (_iou(as_corners(box), masks.extent) >= AGREE)
    # A box at the top left corner of its image is the same in both readings.
    telling = judged & ((np.abs(x0) > SLACK) | (np.abs(y0) > SLACK))
    if (
        telling.sum() >= 3
        and (possible & ~against)[telling].mean() >= SHARE
        and (beyond & possible)[telling].mean() >= 0.2
    ):
        found |= possible & telling
    return found


def _looks_like_fractions(masks: MaskTable, xywh: np.ndarray, sizes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Boxes within the first pixel of a larger image whose polygons, where there are any, are not there too."""
    inside = known & (xywh >= 0).all(axis=1) & (xywh <= 1.001).all(axis=1) & (sizes > 8).all(axis=1)
    return inside & ~(_iou(as_corners(xywh), masks.extent) >= DISAGREE) & ~(masks.extent[:, 2:].max(axis=1) <= 2)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes XYXY, row by row; nan where a box is unknown."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    both = (one[:, 2:] - one[:, :2]).prod(axis=1) + (other[:, 2:] - other[:, :2]).prod(axis=1) - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return shared / both


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether a side is further apart than rounding puts it: of tiny boxes an IoU says little."""
    return (np.abs(one - other) > 2 * SLACK).any(axis=1)


def _short(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in box) + "]"


def _is_integer(side: float) -> str:
    return str(int(side)) if np.isfinite(side) else "unknown"
