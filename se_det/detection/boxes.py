"""Boxes are (n, 4) XYXY in pixels: overlap, clipping, and the deltas that a regressor predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# A predicted width or height grows by at most this factor's logarithm: 1000 / 16, as in Detectron2.
MAX_LOG_SCALE = math.log(1000.0 / 16)


def area(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) to (...), px^2."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of (n, 4) and (m, 4): (n, m), 0 where they do not meet."""
    width = torch.minimum(a[:, None, 2], b[None, :, 2]).sub_(torch.maximum(a[:, None, 0], b[None, :, 0])).clamp_(min=0)
    height = torch.minimum(a[:, None, 3], b[None, :, 3]).sub_(torch.maximum(a[:, None, 1], b[None, :, 1]))
    overlap = width.mul_(height.clamp_(min=0))
    union = (area(a)[:, None] + area(b)).sub_(overlap)
    return torch.where(overlap > 0, overlap / union, overlap.new_zeros(()))


def clip(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(..., 4) with coordinates inside [0, width] and [0, height]."""
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], -1).flatten(-2)


def nonempty(boxes: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """(..., 4) to booleans (...): both sides longer than `threshold`."""
    return (boxes[..., 2] - boxes[..., 0] > threshold) & (boxes[..., 3] - boxes[..., 1] > threshold)


def encode(sources: torch.Tensor, targets: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Deltas (..., 4) that move `sources` to `targets` (R-CNN's parametrisation, arXiv 1311.2524, appendix C).

    Args:
        weights: factors of dx, dy, dw, dh.
    """
    source_x, source_y, source_w, source_h = _centres(sources)
    target_x, target_y, target_w, target_h = _centres(targets)
    wx, wy, ww, wh = weights
    return torch.stack(
        [
            wx * (target_x - source_x) / source_w,
            wy * (target_y - source_y) / source_h,
            ww * torch.log(target_w / source_w),
            wh * torch.log(target_h / source_h),
        ],
        -1,
    )


def decode(deltas: torch.Tensor, sources: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Move boxes by predicted deltas.

    Args:
        deltas: (..., 4 k), k boxes for each source.
        sources: (..., 4).

    Returns:
        (..., 4 k) boxes.
    """
    deltas = deltas.float().unflatten(-1, (-1, 4)) if deltas.dtype != torch.float64 else deltas.unflatten(-1, (-1, 4))
    x, y, w, h = (v[..., None] for v in _centres(sources.to(deltas.dtype)))
    wx, wy, ww, wh = weights
    centre_x = deltas[..., 0] / wx * w + x
    centre_y = deltas[..., 1] / wy * h + y
    half_w = 0.5 * torch.exp((deltas[..., 2] / ww).clamp(max=MAX_LOG_SCALE)) * w
    half_h = 0.5 * torch.exp((deltas[..., 3] / wh).clamp(max=MAX_LOG_SCALE)) * h
    return torch.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], -1).flatten(-2)


def _centres(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


def smooth_l1(predictions: torch.Tensor, targets: torch.Tensor, beta: float) -> torch.Tensor:
    """Element-wise smooth L1; `beta` 0 is plain L1 (and has no division by zero)."""
    if beta < 1e-5:
        return torch.abs(predictions - targets)
    return torch.nn.functional.smooth_l1_loss(predictions, targets, beta=beta, reduction="none")
