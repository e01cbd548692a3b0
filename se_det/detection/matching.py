"""Which ground truth a box stands for, and which boxes a loss is computed on. Nothing here waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .boxes import pairwise_iou

IGNORE = -1
# Overlaps that are computed at a time: thousands of objects times hundreds of thousands of anchors would be many
# gigabytes, and less stays in a CPU's cache.
PIECE = 1 << 18
FEWEST = 4096  # boxes of a piece on a CPU, which are compared with the objects near them alone


def match(
    truth: torch.Tensor,
    boxes: torch.Tensor,
    *,
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Match every box to the ground truth it overlaps most.

    Args:
        truth: (g, 4), g may be 0.
        boxes: (n, 4).
        thresholds: ascending IoU bounds between `labels`.
        labels: one more than thresholds: 0 background, 1 foreground, -1 ignored.
        allow_low_quality: also label 1 whichever boxes overlap a ground truth most, however little
            (Faster R-CNN, arXiv 1506.01497, section 3.1.2, rule i).

    Returns:
        index of the matched ground truth (n,) int64, and the label (n,) int8.
    """
    if len(truth) == 0:
        return (
            boxes.new_zeros(len(boxes), dtype=torch.int64),
            boxes.new_full((len(boxes),), labels[0], dtype=torch.int8),
        )
    best, index = boxes.new_zeros(len(boxes)), boxes.new_zeros(len(boxes), dtype=torch.int64)
    pieces, highest = [], boxes.new_zeros(len(truth))
    for at, near in _pieces(truth, boxes):
        overlap = pairwise_iou(truth[near], boxes[at])
        best[at], nearest = overlap.max(0)
        # What meets no object belongs to the first: that is where the highest of equal zeros is found.
        index[at] = torch.where(best[at] > 0, near[nearest], 0)
        if allow_low_quality:
            pieces.append((at, near, overlap.amax(1)))
            highest[near] = torch.maximum(highest[near], pieces[-1][2])
    label = torch.full_like(index, labels[0], dtype=torch.int8)
    for threshold, value in zip(thresholds, labels[1:]):
        label = torch.where(best >= threshold, label.new_full((), value), label)
    # The highest overlap of an object is known only when all boxes have been seen.
    highest.masked_fill_(highest == 0, torch.inf)  # no box meets it
    for at, near, of_piece in pieces:
        if _may_ask(boxes):
            near = near[_positions(of_piece == highest[near])]
            if not len(near):
                continue
        reached = (pairwise_iou(truth[near], boxes[at]) == highest[near, None]).any(0)
        label[at] = torch.where(reached, label.new_ones(()), label[at])
    return index, label


def _pieces(truth: torch.Tensor, boxes: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Which boxes are compared at a time, and with which objects (their indices): all that these boxes may meet.

    Anchors of neighbouring cells lie together, so most objects are far from most pieces. A CPU is asked which; another
    device would have to be waited for.
    """
    everything = torch.arange(len(truth), device=truth.device)
    on_cpu = _may_ask(boxes)
    size = max(PIECE // len(truth), FEWEST) if on_cpu else max(64 * PIECE // len(truth), 1)
    for start in range(0, len(boxes), size):
        at = slice(start, start + size)
        if not on_cpu:
            yield at, everything
            continue
        low, high = boxes[at, :2].amin(0), boxes[at, 2:].amax(0)
        near = _positions(((truth[:, :2] < high) & (truth[:, 2:] > low)).all(1))
        if len(near):
            yield at, near


def _may_ask(tensor: torch.Tensor) -> bool:
    """Whether a number of it can be had without waiting for a device."""
    return tensor.device.type == "cpu"


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Where a mask on the CPU is true."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def sample(
    labels: torch.Tensor, count: int, positive_fraction: float, *, background: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw up to `count` boxes at random from each row, at most `positive_fraction` of them positive, without waiting
    for the device: rows of fixed length, with a mask of the places that are filled.

    Args:
        labels: (N, n): `background`, -1 (never drawn), or anything else (positive).

    Returns:
        positions (N, k) int64, positives first, and whether each is filled (N, k).
    """
    positive = (labels != background) & (labels != IGNORE)
    negative = labels == background
    keys = torch.rand(labels.shape, device=labels.device)
    max_positive = min(int(count * positive_fraction), labels.shape[1])
    positive_at, positive_filled = _draw(keys, positive, max_positive)
    negative_at, negative_filled = _draw(keys, negative, min(count, labels.shape[1]))
    room = count - positive_filled.sum(1, keepdim=True)
    negative_filled &= torch.arange(negative_at.shape[1], device=labels.device) < room
    return torch.cat([positive_at, negative_at], 1), torch.cat([positive_filled, negative_filled], 1)


def _draw(keys: torch.Tensor, wanted: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    value, index = torch.where(wanted, keys, -1.0).topk(count, dim=1)
    return index, value >= 0


def true_indices_first(mask: torch.Tensor) -> torch.Tensor:
    """The positions of a mask (n,), those that are true first, both parts in their order: so that how many there are
    can be asked of the device for several masks at once, where each index with a mask would wait for its own."""
    return torch.argsort(mask.logical_not().to(torch.uint8), stable=True)
