"""RegNetX and RegNetY (Radosavovic et al., arXiv 2003.13678), with gates."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import Any

import torch

from ..errors import ConfigError
from ..layers.conv import Conv2d
from ..layers.gates import SE
from ..layers.valid_area import ValidArea
from .blocks import GateMaker, ResidualBlock, Stage
from .conv_units import ConvReLU
from .trunk import STAGES, Trunk

DEFAULT_REDUCTION = 16  # of a trunk, which RegNetY does not read


class RegNetBlock(ResidualBlock):
    """1 x 1, grouped 3 x 3 of the block's stride, 1 x 1, all of one width: the paper's X block, and its Y block.

    Args:
        groups: of the 3 x 3.
        gate: makes the gate for a number of channels, or None for no gate.
        inner: the gate is after the ReLU of the 3 x 3, as in the Y block, and its hidden width is a quarter of the
            channels that the block reads. Otherwise it is on the branch's output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups: int, norm: str, gate: GateMaker | None,
        inner: bool,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, gate=gate)
        self.conv1 = Conv2d(in_channels, out_channels, 1, norm=norm)
        self.conv2 = Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, groups=groups, norm=norm)
        self.conv3 = Conv2d(out_channels, out_channels, 1, norm=norm)
        if inner:
            self.placement = "inner"
            if isinstance(self.gate, SE):
                self.gate.resize_hidden(round(in_channels / 4))

    def forward_to_last(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        x, area = self.conv1.forward_relu(x, area), self.conv1.area_after(area)
        x, area = self.conv2.forward_relu(x, area), self.conv2.area_after(area)
        return self._gated("inner", x, area), area

    @property
    def last(self) -> Conv2d:
        return self.conv3

    def compensating_weights(self) -> list[torch.Tensor]:
        if self.placement == "inner":  # a ReLU lets a factor through
            return [self.conv2.norm.weight, self.conv2.norm.bias]
        return super().compensating_weights()


def stage_widths(*, depth: int, w_0: int, w_a: float, w_m: float, group_width: int) -> list[tuple[int, int, int]]:
    """(blocks, channels, groups) of each stage (section 3.3): widths that rise by `w_a` a block from `w_0`, each
    brought to a power of `w_m` times `w_0`, to a multiple of 8, and to one of the groups' width."""
    exponents = [round(math.log(1 + w_a * block / w_0) / math.log(w_m)) for block in range(depth)]
    blocks = Counter(round(w_0 * w_m**exponent / 8) * 8 for exponent in exponents)
    stages = []
    for width in sorted(blocks):
        in_group = min(group_width, width)
        groups = max(1, round(width / in_group))
        stages.append((blocks[width], groups * in_group, groups))
    return stages


class RegNet(Trunk):
    """A 3 x 3 stem of stride 2 and four stages, `res2` to `res5`, each of which halves the map.

    The weights of Detectron2 and pycls, which call the stages s1 to s4, are read under their names, torchvision's as
    well: docs/weights.md.

    Args:
        depth, w_0, w_a, w_m, group_width: see `stage_widths`.
        stem_channels: of the stem.
        inner_gate: the gate is where RegNetY has its SE, see `RegNetBlock`; MODEL.GATE.REDUCTION is not read then.
        common: see `Trunk`.

    Raises:
        ConfigError: with `inner_gate` there is a reduction; or the widths make other than four stages.
    """

    def __init__(
        self, *, depth: int, w_0: int, w_a: float, w_m: float, group_width: int, stem_channels: int = 32,
        inner_gate: bool = False, norm: str = "BN", reduction: int = DEFAULT_REDUCTION, **common: Any,
    ) -> None:  # fmt: skip
        if inner_gate and reduction != DEFAULT_REDUCTION:
            raise ConfigError(
                f"MODEL.GATE.REDUCTION is {reduction}, and a RegNetY's gates have a quarter of the channels that their "
                f"block reads: leave it at {DEFAULT_REDUCTION}."
            )
        # The hidden width is set by the block; no channels are too few for this one.
        super().__init__(norm=norm, reduction=1 if inner_gate else reduction, **common)
        stages = stage_widths(depth=depth, w_0=w_0, w_a=w_a, w_m=w_m, group_width=group_width)
        if len(stages) != len(STAGES):
            raise ConfigError(
                f"A RegNet of depth {depth}, w_0 {w_0}, w_a {w_a}, w_m {w_m} has {len(stages)} stages, and a trunk "
                f"needs {len(STAGES)}: choose other numbers."
            )
        self.stem = Stage(OrderedDict(conv1=ConvReLU(3, stem_channels, 3, stride=2, padding=1, norm=norm)))
        channels, stride = stem_channels, 2
        for stage, (count, width, groups) in zip(STAGES, stages):
            blocks = []
            for index in range(count):
                blocks.append(
                    RegNetBlock(
                        channels, width, stride=1 if index else 2, groups=groups, norm=norm,
                        gate=self.gate_factory(stage), inner=inner_gate,
                    )
                )  # fmt: skip
                channels = width
            stride *= 2
            self.add_stage(stage, Stage(*blocks), channels=channels, stride=stride)
        self.init_weights()
