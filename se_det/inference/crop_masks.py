"""Masks of small objects in large images: each is kept as the part of the image that it lies in, run-length encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_tools

from ..data.augmentations.protocol import bitmap_extent
from ..data.rle import window_counts
from ..detection.masks import paste_windows


@dataclass(frozen=True)
class CropMask:
    """A mask that is 0 outside of a rectangle of its image.

    Attributes:
        left, top: of the rectangle px.
        rle: of the mask inside, as pycocotools encodes it; its `size` is the rectangle's (height, width).
    """

    left: int
    top: int
    rle: dict[str, Any]

    def moved(self, x: int, y: int) -> CropMask:
        """The same so many px further to the right and down."""
        return replace(self, left=self.left + x, top=self.top + y)

    def pixels(self) -> np.ndarray:
        """bool (height, width) of the rectangle."""
        return mask_tools.decode(self.rle).astype(bool)

    def shrunk(self, factor: int) -> CropMask:
        """The same in an image that is so many times smaller: every `factor`-th row and column of it."""
        first_row, first_column = -self.top % factor, -self.left % factor
        pixels = self.pixels()[first_row::factor, first_column::factor]
        return crop_mask(pixels, -(-self.left // factor), -(-self.top // factor))


def crop_mask(pixels: np.ndarray, left: int, top: int) -> CropMask:
    """The mask whose rectangle is the bool (h, w) `pixels`, placed in its image."""
    return CropMask(left, top, mask_tools.encode(np.asfortranarray(pixels, np.uint8)))


def crop_masks_of(instances: Mapping[str, Any], order: np.ndarray | slice = slice(None)) -> list[CropMask] | None:
    """The masks of what a detector's `detect` gives for one image, in `order`; None where it makes none."""
    if "box_masks" in instances:
        boxes = instances["pred_boxes"].detach().cpu().float()[order]
        found = paste_windows(instances["box_masks"].detach().cpu()[order], boxes, *instances["image_size"])
        return [crop_mask(window.T, left, top) for top, left, window in found]
    if "pred_masks" not in instances:
        return None
    result = []
    for mask in instances["pred_masks"].detach().cpu().numpy()[order]:
        x0, y0, x1, y1 = bitmap_extent(mask) or (0, 0, 0, 0)
        result.append(crop_mask(mask[y0:y1, x0:x1], x0, y0))
    return result


def united(masks: Sequence[CropMask]) -> CropMask:
    """The mask of all that is in any of these, of one image."""
    if len(masks) == 1:
        return masks[0]
    places = np.array([[m.left, m.top, m.left + m.rle["size"][1], m.top + m.rle["size"][0]] for m in masks])
    left, top = places[:, :2].min(axis=0).tolist()
    right, bottom = places[:, 2:].max(axis=0).tolist()
    pixels = np.zeros((bottom - top, right - left), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, (places - [left, top, left, top]).tolist()):
        pixels[y0:y1, x0:x1] |= mask.pixels()
    return crop_mask(pixels, left, top)


def encode_crop_masks(masks: Sequence[CropMask], height: int, width: int) -> list[dict[str, Any]]:
    """Compressed RLEs `{"size": [height, width], "counts": bytes}` of the whole image."""
    counts = [
        {"size": [height, width],
         "counts": window_counts(mask.pixels().T, mask.top, mask.left, height, width).tolist()}
        for mask in masks
    ]  # fmt: skip
    return mask_tools.frPyObjects(counts, height, width) if counts else []


def paste_crop_masks(masks: Sequence[CropMask], height: int, width: int) -> torch.Tensor:
    """bool (n, height, width): the masks in their image."""
    result = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for image, mask in zip(result.numpy(), masks):
        pixels = mask.pixels()
        image[mask.top : mask.top + pixels.shape[0], mask.left : mask.left + pixels.shape[1]] = pixels
    return result
