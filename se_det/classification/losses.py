"""Classification losses, for classes as numbers or as shares that mixed images have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError

LOSSES = ("CE", "BCE")


class ClassificationLoss(nn.Module):
    """Cross-entropy, or binary cross-entropy of every class averaged over images and classes (arXiv 2110.00476).

    Args:
        name: "CE" or "BCE".
        smoothing: share of the target that is spread over all classes (Szegedy et al., arXiv 1512.00567, section 7).

    Raises:
        ConfigError: an unknown name, or a smoothing outside 0 to 1.
    """

    def __init__(self, *, name: str = "CE", smoothing: float = 0.0) -> None:
        super().__init__()
        if name not in LOSSES:
            raise ConfigError(f"SOLVER.LOSS '{name}' is unknown: use one of {', '.join(LOSSES)}.")
        if not 0 <= smoothing < 1:
            raise ConfigError(f"SOLVER.LABEL_SMOOTHING must be at least 0 and below 1, got {smoothing}.")
        self.name, self.smoothing = name, smoothing

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) and classes (N,) or shares (N, K) to a 0-d loss, in float32 whatever the network is in."""
        logits = logits.float()
        if self.name == "CE":
            return F.cross_entropy(logits, target, label_smoothing=self.smoothing)
        classes = logits.shape[1]
        shares = F.one_hot(target, classes).to(logits) if target.ndim == 1 else target.to(logits)
        shares = shares * (1 - self.smoothing) + self.smoothing / classes
        return F.binary_cross_entropy_with_logits(logits, shares)
