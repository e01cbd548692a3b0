"""MobileNet v1 (Howard et al., arXiv 1704.04861), width 1, with gates."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from ..layers.valid_area import ValidArea
from .blocks import GatedBlock, GateMaker, Stage
from .conv_units import ConvReLU
from .trunk import Trunk

# Output channels of each stage's units (table 1); the first unit of a stage has stride 2.
UNITS = {
    "res2": (128, 128),
    "res3": (256, 256),
    "res4": (512, 512, 512, 512, 512, 512),
    "res5": (1024, 1024),
}


class SeparableUnit(GatedBlock):
    """3 x 3 depthwise and 1 x 1 convolution, each with norm and ReLU, then the gate."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str, gate: GateMaker | None
    ) -> None:
        super().__init__()
        self.depthwise = ConvReLU(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, norm=norm
        )  # fmt: skip
        self.pointwise = ConvReLU(in_channels, out_channels, 1, norm=norm)
        self.gate = gate(out_channels) if gate else None

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H / stride, W / stride) and its area."""
        x, area = self.pointwise(*self.depthwise(x, area))
        return (x if self.gate is None else self.gate(x, area)), area

    def compensating_weights(self) -> list[torch.Tensor]:
        return [self.pointwise.norm.weight, self.pointwise.norm.bias]


class MobileNet(Trunk):
    """MobileNet v1: the first convolution and the first unit are the stem, twelve units the stages `res2` to `res5`.

    The SE paper does not say where the gate sits. It is on each unit's output, after the ReLU of the 1 x 1, as in other
    networks without residual branches; 4.7 M parameters agree with the paper's table 3. The stem's gate belongs to
    `res2` in MODEL.GATE.STAGES and in RG-SE's grid.

    Args:
        common: see `Trunk`.
    """

    def __init__(self, *, norm: str = "BN", **common: Any) -> None:
        super().__init__(norm=norm, **common)
        self.stem = Stage(
            OrderedDict(
                conv1=ConvReLU(3, 32, 3, stride=2, padding=1, norm=norm),
                unit1=SeparableUnit(32, 64, norm=norm, gate=self.gate_factory("res2")),
            )
        )
        channels, stride = 64, 2
        for stage, widths in UNITS.items():
            units = []
            for index, width in enumerate(widths):
                unit_stride = 1 if index else 2
                units.append(
                    SeparableUnit(channels, width, stride=unit_stride, norm=norm, gate=self.gate_factory(stage))
                )
                channels = width
            stride *= 2
            self.add_stage(stage, Stage(*units), channels=channels, stride=stride)
        self.init_weights()
