"""Masks of instances: cut to boxes for the loss, pasted into images for the result.

Ground-truth masks come as a dict of tensors (lengths: P polygons with M vertices in all, R bitmaps):
`polygons` float64 (M, 2) px, `polygon_points` int64 (P,) vertices of each, `polygon_owner` int64 (P,) its instance,
`bitmaps` uint8 (R, H, W), `bitmap_owner` int64 (R,).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from pycocotools import mask as coco_mask

from .operators import roi_align

# Bytes that the float masks of one chunk may take that is pasted whole.
PASTE_BYTES = 128 * 2**20


def crop_masks(
    masks: Mapping[str, torch.Tensor], instances: torch.Tensor, boxes: torch.Tensor, size: int,
    *, on_host: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:  # fmt: skip
    """What each box sees of its instance's mask.

    Polygons are shifted and scaled to the box and filled at `size` x `size` by pycocotools; bitmaps are sampled by
    RoIAlign and count from one half (both as in Detectron2, where a data set has only one kind).

    Args:
        masks: see the module.
        instances: (n,) int64, which instance each box shows.
        boxes: (n, 4).
        on_host: the instances and the boxes on the host, where they are there already: nothing waits for the device.

    Returns:
        (n, size, size) bool, on the boxes' device.
    """
    result = torch.zeros(len(boxes), size, size, dtype=torch.bool, device=boxes.device)
    if len(boxes) == 0:
        return result
    instances, host_boxes = (instances.cpu(), boxes.cpu()) if on_host is None else on_host
    if len(masks["bitmaps"]):
        pairs = _pairs(instances, masks["bitmap_owner"].cpu())
        at, row = (part.to(boxes.device, non_blocking=True) for part in pairs)
        rois = torch.cat([row[:, None].to(boxes.dtype), boxes[at]], 1)
        bitmaps = masks["bitmaps"].to(boxes.device, non_blocking=True).to(boxes.dtype)[:, None]  # as bytes on their way
        result[at] = roi_align(bitmaps, rois, size, 1.0, 0, aligned=True)[:, 0] >= 0.5
    if len(masks["polygon_points"]):
        drawn = _draw_polygons(masks, instances, host_boxes.numpy(), size)
        result |= torch.from_numpy(drawn).to(boxes.device, non_blocking=True)
    return result


def instances_with_mask(masks: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    """bool (count,): which of so many instances have a mask; on the device of `masks`."""
    result = torch.zeros(count, dtype=torch.bool, device=masks["polygon_owner"].device)
    for key in ("polygon_owner", "bitmap_owner"):
        result.index_fill_(0, masks[key].long(), True)
    return result


def _pairs(instances: torch.Tensor, owners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All (position in `instances`, position in `owners`) that name the same instance."""
    return (instances[:, None] == owners[None, :]).nonzero(as_tuple=True)


def _draw_polygons(
    masks: Mapping[str, torch.Tensor], instances: torch.Tensor, boxes: np.ndarray, size: int
) -> np.ndarray:
    """(n, size, size) bool: the union of each box's polygons, all of them filled in one call."""
    at, polygon = (v.numpy() for v in _pairs(instances, masks["polygon_owner"].cpu()))
    points = masks["polygon_points"].cpu().numpy()
    ends = np.cumsum(points)
    corner = boxes[:, :2]
    # A side below a tenth of a pixel would blow a polygon up without bound. In the boxes' own precision, as Detectron2
    # does: a vertex on the border between two cells goes to the same side.
    ratio = size / np.maximum(boxes[:, 2:] - corner, 0.1)
    counts = points[polygon]
    owner = np.repeat(at, counts)
    first = np.repeat(ends[polygon] - counts, counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    vertices = (masks["polygons"].cpu().numpy()[first + within] - corner[owner]) * ratio[owner]
    pieces = np.split(vertices.reshape(-1), np.cumsum(2 * counts)[:-1])
    result = np.zeros((len(boxes), size, size), dtype=bool)
    if len(pieces) and len(at):
        filled = coco_mask.decode(coco_mask.frPyObjects(pieces, size, size)).astype(bool)
        np.logical_or.at(result, at, filled.transpose(2, 0, 1))
    return result


def paste_masks(probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Put masks into an image: bilinear sampling at pixel centres, zero outside the box, foreground from 0.5.

    On a CPU each mask's own window is all that is computed; elsewhere so many small steps would take longer than whole
    images in a few large ones.

    Args:
        probabilities: (n, M, M).
        boxes: (n, 4) px in the image.

    Returns:
        (n, height, width) bool.
    """
    if boxes.device.type != "cpu":
        return _paste_full_size(probabilities, boxes, height, width)
    result = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for image, (top, left, window) in zip(result.numpy(), paste_windows(probabilities, boxes, height, width)):
        image[top : top + window.shape[1], left : left + window.shape[0]] = window.T
    return result


def paste_windows(
    probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """What `paste_masks` puts into the image, mask by mask, without the image around it; on the CPU.

    Yields:
        (top, left, window): the window's first row and column, and its bool pixels (columns, rows), columns first as in
        COCO's run lengths. There is no foreground outside of it. Sides may be 0.
    """
    probabilities, boxes = probabilities.float().cpu().numpy(), boxes.float().cpu().numpy()
    limit = np.array([width, height])
    # A pixel whose centre is outside the box has less than half of a probability. One more for rounding.
    first = np.clip(np.floor(boxes[:, :2]) - 1, 0, limit).astype(int)
    last = np.clip(np.ceil(boxes[:, 2:]) + 1, first, limit).astype(int)
    cells = np.arange(probabilities.shape[-1], dtype=np.float32)
    for mask, (x0, y0, x1, y1), (left, top), (right, bottom) in zip(
        probabilities, boxes, first.tolist(), last.tolist()
    ):
        columns, rows = _weights(x0, x1, left, right, cells), _weights(y0, y1, top, bottom, cells)
        yield top, left, (columns @ mask.T) @ rows.T >= 0.5


def _weights(low: np.float32, high: np.float32, first: int, last: int, cells: np.ndarray) -> np.ndarray:
    """(last - first, M): how much each of M mask cells adds to each of these pixels."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a box without area has no foreground
        position = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - low) / (high - low)
        position = position * np.float32(len(cells)) - np.float32(0.5)
    return np.maximum(1 - np.abs(position[:, None] - cells), 0)


def _paste_full_size(probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`paste_masks`, many at once: bilinear sampling on an axis-aligned box is a product of one matrix per side."""
    count, side = probabilities.shape[:2]
    result = torch.zeros(count, height, width, dtype=torch.bool, device=boxes.device)
    chunk = max(1, PASTE_BYTES // max(1, 4 * height * width))
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        rows = _sampling(boxes[part, 1], boxes[part, 3], height, side)
        columns = _sampling(boxes[part, 0], boxes[part, 2], width, side)
        result[part] = rows @ (probabilities[part].to(rows.dtype) @ columns.transpose(1, 2)) >= 0.5
    return result


def _sampling(low: torch.Tensor, high: torch.Tensor, length: int, side: int) -> torch.Tensor:
    """(n, length, side): how much each of `side` mask cells adds to each of `length` pixels."""
    pixel = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    position = (pixel - low[:, None]) / (high - low)[:, None] * side - 0.5
    cell = torch.arange(side, device=low.device, dtype=low.dtype)
    return (1 - (position[..., None] - cell).abs()).clamp(min=0)
