"""The focal loss of one-stage detectors (Lin et al., arXiv 1708.02002, equation 5)."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """The sum over all boxes and classes.

    Args:
        logits: (..., K).
        labels: (...) int64 class of each box; K for background, -1 for boxes that do not count.
        alpha: weight of the positive terms, 1 - alpha is that of the others; negative: no weights.
        gamma: the power by which what is known well counts less.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    positive = labels[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    # With z the logit of what is true, cross-entropy is softplus(-z) and 1 - p is sigmoid(-z).
    against = torch.where(positive, -logits, logits)
    losses = F.softplus(against) * against.sigmoid() ** gamma
    if alpha >= 0:
        losses = losses * torch.where(positive, alpha, 1 - alpha)
    return torch.where(labels[..., None] >= 0, losses, 0.0).sum()
