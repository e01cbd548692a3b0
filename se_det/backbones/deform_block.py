"""A bottleneck with a deformable 3 x 3 convolution. Parameter names are Detectron2's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..layers.conv import Conv2d
from ..layers.deform_conv import DeformConv2d
from ..layers.valid_area import ValidArea
from .blocks import Bottleneck

POINTS = 9  # of the kernel


class DeformBottleneck(Bottleneck):
    """`Bottleneck` whose 3 x 3 convolution's points are moved by what another 3 x 3 convolution says.

    Args:
        modulated: each point's value is multiplied by a factor between 0 and 1, too (arXiv 1811.11168).
        deform_groups: groups of channels whose points are moved together.
        bottleneck: see `Bottleneck`.
    """

    def __init__(self, *args: Any, modulated: bool = False, deform_groups: int = 1, **bottleneck: Any) -> None:
        super().__init__(*args, **bottleneck)
        plain = self.conv2
        shared = {"stride": plain.stride[0], "padding": plain.padding[0], "dilation": plain.dilation[0]}
        self.modulated = modulated
        self.conv2_offset = Conv2d(plain.in_channels, (3 if modulated else 2) * POINTS * deform_groups, 3, **shared)
        self.conv2 = DeformConv2d(
            plain.in_channels, plain.out_channels, 3, groups=plain.groups, bias=False, **shared
        )  # fmt: skip
        self.conv2.norm = plain.norm
        self.start_undeformed()

    def start_undeformed(self) -> None:
        """No point is moved at first."""
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)

    def forward_to_last(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        x, area = self.conv1.forward_relu(x, area), self.conv1.area_after(area)
        offset, factor = self.conv2_offset(x, area), None
        if self.modulated:
            offset, factor = offset.split([offset.shape[1] // 3 * 2, offset.shape[1] // 3], 1)
            factor = factor.sigmoid()
        return self.conv2.forward_relu(x, area, offset=offset, factor=factor), self.conv2.area_after(area)
