"""A linear classifier on a trunk."""

from __future__ import annotations

import torch
from torch import nn


class Classifier(nn.Module):
    """Global average of the trunk's last map, then a linear layer.

    Args:
        trunk: a backbone with `features`, `channels` and `out_features`.
        num_classes: width of the output.
        dropout: probability of dropping each channel before the linear layer, in training.
    """

    def __init__(self, trunk: nn.Module, *, num_classes: int = 1000, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(trunk.channels[trunk.out_features[-1]], num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, to the last feature map (N, C, H / 32, W / 32)."""
        return self.trunk.features(x)[0][self.trunk.out_features[-1]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, to logits (N, num_classes)."""
        return self.linear(self.dropout(self.forward_features(x).mean((-2, -1))))
