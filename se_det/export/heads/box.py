"""What the predictors of boxes read: of RoI heads with box heads, and of those whose head is the trunk's last stage."""

from __future__ import annotations

import torch
from torch import nn

from .registry import BOX_FEATURES


@BOX_FEATURES.register(name="StandardROIHeads")
@BOX_FEATURES.register(name="CascadeROIHeads")
def box_head_features(head: nn.Module, pooled: torch.Tensor) -> torch.Tensor:
    """Of a box head."""
    return head(pooled)


@BOX_FEATURES.register(name="Res5ROIHeads")
def res5_features(head: nn.Module, pooled: torch.Tensor) -> torch.Tensor:
    """The mean of `res5`."""
    return head(pooled)[0].mean((2, 3))
