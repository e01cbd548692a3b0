"""A moving average of a number that a training counts at every step."""

from __future__ import annotations

import torch
from torch import nn


class RunningMean(nn.Module):
    """`m(x)` gives `momentum * average + (1 - momentum) * x` and, in training mode, keeps it; in evaluation mode it
    gives the average as it is.

    The number is no weight: it is not in the module's state, as it is not in Detectron2's. A run keeps it beside the
    weights (`training.state`).

    Args:
        start: the average before the first step.
    """

    def __init__(self, start: float, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.tensor(float(start)), persistent=False)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A number () to the average ()."""
        if self.training:
            self.value.copy_(self.momentum * self.value + (1 - self.momentum) * x)
        return self.value.clone()


def running_means(model: nn.Module) -> dict[str, RunningMean]:
    """All of `model` by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, RunningMean)}
