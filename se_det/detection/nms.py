"""Non-maximum suppression of an image's detections, within each class."""

from __future__ import annotations

import torch

from . import boxes as box_ops
from .operators import batched_nms

NMS_TYPES = ("hard", "linear", "gaussian")
LEAST_SCORE = 1e-3  # what soft-NMS has brought below this is dropped


def suppress(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    *,
    threshold: float,
    most: int,
    kind: str = "hard",
    sigma: float = 0.5,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The detections that stay.

    Args:
        boxes, scores, classes: (n, 4) XYXY px, (n,), (n,).
        threshold: IoU from which a box is suppressed ("hard"), or its score lowered ("linear").
        most: how many stay at most.
        kind: "hard", or soft-NMS (Bodla et al., arXiv 1704.04503): a better box of IoU o lowers the score of another by
            the factor 1 - o ("linear") or exp(-o^2 / sigma) ("gaussian").

    Returns:
        indices of those that stay, best first, and their scores.
    """
    if kind == "hard":
        keep = batched_nms(boxes, scores, classes, threshold)[:most]
        return keep, scores[keep]
    return _soft(boxes, scores, classes, threshold=threshold, most=most, sigma=None if kind == "linear" else sigma)


def _soft(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, *, threshold: float, most: int,
    sigma: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Boxes of other classes leave each other alone, so that taking the best of all classes again and again takes those
    of each class in its own order; and what is taken later never has a higher score. `most` rounds are thus enough."""
    left, found, worth = scores.clone(), [], []
    for _ in range(min(most, len(boxes))):
        best, at = left.max(0)
        found.append(at)
        worth.append(best)
        overlap = box_ops.pairwise_iou(boxes[at][None], boxes)[0]
        if sigma is None:
            factor = torch.where(overlap >= threshold, 1 - overlap, 1.0)
        else:
            factor = torch.exp(-(overlap**2) / sigma)
        left = torch.where(classes == classes[at], left * factor, left)
        left[at] = -1.0
    if not found:
        return torch.zeros(0, dtype=torch.int64, device=scores.device), scores
    keep, kept_scores = torch.stack(found), torch.stack(worth)
    lasting = kept_scores >= LEAST_SCORE
    return keep[lasting], kept_scores[lasting]
