"""Whether anchors can find objects: the best possible recall, and the anchors that reach it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

IOU = 0.5


def best_possible_recall(
    boxes: np.ndarray, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]
) -> float:
    """The share of boxes that an anchor overlaps with IoU of at least 0.5, where a box lies as it does on average.

    Args:
        boxes: (n, 2) widths and heights px.
        sizes: of each level's anchors, px (square roots of areas).
        ratios: heights over widths.
        strides: px between the anchors of each level: a box's centre is a quarter of it from the nearest one's in both
            directions, on average.
    """
    return float((best_overlaps(boxes, sizes, ratios, strides) >= IOU).mean()) if len(boxes) else 1.0


def best_overlaps(
    boxes: np.ndarray, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]
) -> np.ndarray:
    """float64 (n,): the IoU of each box with the anchor that overlaps it most, as in `best_possible_recall`."""
    best = np.zeros(len(boxes))
    for level, stride in zip(sizes, strides):
        for size in level:
            for ratio in ratios:
                width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
                overlap = _overlap(boxes[:, 0], width, stride / 4) * _overlap(boxes[:, 1], height, stride / 4)
                best = np.maximum(best, overlap / (boxes.prod(1) + width * height - overlap))
    return best


def _overlap(one: np.ndarray, other: float, offset: float) -> np.ndarray:
    """Of intervals of these lengths whose centres are `offset` apart."""
    return np.clip(np.minimum(np.minimum(one, other), (one + other) / 2 - offset), 0, None)


def fitting_anchors(
    boxes: np.ndarray, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int], least: float
) -> tuple[list[list[float]], list[float], float]:
    """The first anchors of some candidates whose best possible recall is at least `least`, else the best; with it.

    Args:
        sizes, ratios: those that are kept if they do.
    """
    candidates = [
        ([[size * scale for size in level] for level in sizes], [*ratios, *more])
        for more in ((), (min(ratios) / 2, max(ratios) * 2))
        for scale in (1.0, 0.5, 2.0)
    ]
    candidates += [
        ([[size * scale * step for size in level for step in (1.0, 2**0.5)] for level in sizes], [*ratios, *more])
        for more in ((), (min(ratios) / 2, max(ratios) * 2))
        for scale in (1.0, 0.5, 0.25)
    ]
    scored = []
    for level_sizes, shapes in candidates:
        recall = best_possible_recall(boxes, level_sizes, shapes, strides)
        if recall >= least:
            return level_sizes, sorted(shapes), recall
        scored.append((recall, level_sizes, sorted(shapes)))
    recall, level_sizes, shapes = max(scored, key=lambda found: found[0])
    return level_sizes, shapes, recall
