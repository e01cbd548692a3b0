"""What networks without residual branches are made of: convolution, norm, ReLU, and there the gate."""

from __future__ import annotations

from typing import Any

import torch

from ..layers.conv import Conv2d
from ..layers.valid_area import ValidArea
from .blocks import GatedBlock, GateMaker


class ConvReLU(Conv2d):
    """A convolution with its norm and a ReLU, as a step of a `Stage`."""

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H', W') and its area."""
        return self.forward_relu(x, area), self.area_after(area)


class GatedConv(ConvReLU, GatedBlock):
    """A convolution with its norm, a ReLU and a gate: "after the non-linearity following each convolution"
    (Hu et al., arXiv 1709.01507, section 3.3, on VGG).

    Args:
        gate: makes the gate for a number of channels, or None for no gate.
        others: those of `Conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, gate: GateMaker | None, **others: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **others)
        self.gate = gate(out_channels) if gate else None

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """As `ConvReLU`."""
        x, area = super().forward(x, area)
        return (x if self.gate is None else self.gate(x, area)), area

    def compensating_weights(self) -> list[torch.Tensor]:
        return [self.norm.weight, self.norm.bias]
