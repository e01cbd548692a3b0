"""ShuffleNet v1 (Zhang et al., arXiv 1707.01083), width 1 and 3 groups, with gates."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.pool import Pool
from ..layers.valid_area import ValidArea
from .blocks import GatedBlock, GateMaker, Stage
from .conv_units import ConvReLU
from .trunk import Trunk

GROUPS = 3
# Output channels and units of each stage (table 1, 3 groups); the first unit of a stage has stride 2.
STAGE_UNITS = {"res3": (240, 4), "res4": (480, 8), "res5": (960, 4)}


class ShuffleUnit(GatedBlock):
    """Grouped 1 x 1, channel shuffle, 3 x 3 depthwise, grouped 1 x 1; the gate; then the shortcut.

    With stride 1 the input is added; with stride 2 its 3 x 3 average is concatenated and the branch gives the rest of
    the channels. A ReLU follows either.

    Args:
        groups_in: groups of the first convolution: 1 where the input has 24 channels only (section 3.2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups_in: int, norm: str, gate: GateMaker | None
    ) -> None:
        super().__init__()
        inner = out_channels // 4
        outer = out_channels - in_channels if stride == 2 else out_channels
        self.conv1 = Conv2d(in_channels, inner, 1, groups=groups_in, norm=norm)
        self.conv2 = Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, norm=norm)
        self.conv3 = Conv2d(inner, outer, 1, groups=GROUPS, norm=norm)
        self.pool = Pool("avg", 3, stride=2, padding=1) if stride == 2 else None
        self.gate = gate(outer) if gate else None

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H / stride, W / stride) and its area."""
        u = shuffle(self.conv1.forward_relu(x, area))
        after = self.conv2.area_after(area)
        u = self.conv3(self.conv2(u, area), after)
        if self.gate is not None:
            u = self.gate(u, after)
        if self.pool is None:
            return F.relu_(u.add_(x)), after
        return F.relu_(torch.cat([self.pool(x, area)[0], u], 1)), after

    def compensating_weights(self) -> list[torch.Tensor]:
        return [self.conv3.norm.weight, self.conv3.norm.bias]


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) with the channels of the groups interleaved: group g's channel c goes to place c * GROUPS + g."""
    return x.unflatten(1, (GROUPS, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleNet(Trunk):
    """ShuffleNet v1: `res2` is the stem's pooled map (24 channels, stride 4), its three stages are `res3` to `res5`.

    The SE paper does not say where the gate sits. It is on the branch of each unit, before the addition or
    concatenation, as in residual networks; 2.5 M parameters against the 2.4 M of the paper's table 3 (of which the
    network without gates has 1.9 against 1.8, so the paper's are rounded down). `res2` has none.

    Args:
        common: see `Trunk`.
    """

    def __init__(self, *, norm: str = "BN", **common: Any) -> None:
        super().__init__(norm=norm, **common)
        self.stem = Stage(OrderedDict(conv1=ConvReLU(3, 24, 3, stride=2, padding=1, norm=norm)))
        self.add_stage("res2", Stage(Pool("max", 3, stride=2, padding=1)), channels=24, stride=4)
        channels, stride = 24, 4
        for stage, (width, count) in STAGE_UNITS.items():
            units = []
            for index in range(count):
                units.append(
                    ShuffleUnit(
                        channels, width, stride=1 if index else 2, groups_in=1 if channels == 24 else GROUPS,
                        norm=norm, gate=self.gate_factory(stage),
                    )
                )  # fmt: skip
                channels = width
            stride *= 2
            self.add_stage(stage, Stage(*units), channels=channels, stride=stride)
        self.init_weights()
