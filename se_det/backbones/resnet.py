"""ResNet and ResNeXt trunks with gates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.area import ValidArea
from ..layers.conv import Conv2d
from ..layers.gates import make_gate
from ..layers.norms import freeze_norms
from .blocks import BasicBlock, Bottleneck, ResidualBlock, Stage
from .stem import BasicStem

STAGES = ("res2", "res3", "res4", "res5")
PADDINGS = ("keep", "squeeze", "exact")

# Blocks per stage by depth (He et al., arXiv 1512.03385, table 1).
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """A stem and four stages, `res2` to `res5`, of strides 4 to 32.

    Args:
        depth: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks).
        groups, width_per_group: those of the 3 x 3 convolutions; 32 and 4 make ResNeXt 32x4d.
        norm: "BN", "SyncBN", "FrozenBN" or "GN".
        stride_in_1x1: see `Bottleneck`.
        stem_channels: channels of the stem.
        stem_pool: see `BasicStem`.
        res2_channels: channels of `res2`, which double from stage to stage; 256 with bottlenecks, 64 without.
        res5_dilation: 1, or 2 to keep `res5` at stride 16.
        gate, reduction, gate_bias, gate_norm: see `layers.gates`; an empty `gate_norm` follows `norm`.
        gate_stages: the stages whose blocks have the gate.
        gate_init: "paper", or "identity" (a fresh gate leaves the network's function unchanged).
        padding: what counts outside each image of a padded batch: "keep", "squeeze" or "exact".
        out_features: the stages to return.

    Raises:
        ConfigError: an argument has a value that is not listed above.
    """

    size_divisibility = 0

    def __init__(
        self,
        *,
        depth: int = 50,
        groups: int = 1,
        width_per_group: int = 64,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        stem_channels: int = 64,
        stem_pool: str = "pad1",
        res2_channels: int | None = None,
        res5_dilation: int = 1,
        gate: str = "none",
        reduction: int = 16,
        gate_bias: bool = True,
        gate_norm: str = "",
        gate_stages: Sequence[str] = STAGES,
        gate_init: str = "paper",
        padding: str = "keep",
        out_features: Sequence[str] = STAGES,
    ) -> None:
        super().__init__()
        _check("MODEL.RESNETS.DEPTH", depth, DEPTHS)
        _check("MODEL.RESNETS.RES5_DILATION", res5_dilation, (1, 2))
        _check("MODEL.GATE.INIT", gate_init, ("paper", "identity"))
        _check("MODEL.GATE.PADDING", padding, PADDINGS)
        for stage in gate_stages:
            _check("MODEL.GATE.STAGES", stage, STAGES)
        for stage in out_features:
            _check("MODEL.RESNETS.OUT_FEATURES", stage, STAGES)
        if not norm:
            raise ConfigError("MODEL.RESNETS.NORM is empty: use FrozenBN, BN, SyncBN or GN.")
        bottleneck = depth >= 50
        if not bottleneck and (groups != 1 or width_per_group != 64 or res5_dilation != 1):
            raise ConfigError(
                f"MODEL.RESNETS.DEPTH {depth} has basic blocks, which need NUM_GROUPS 1, WIDTH_PER_GROUP 64 and "
                f"RES5_DILATION 1; got {groups}, {width_per_group} and {res5_dilation}."
            )
        channels = res2_channels or (256 if bottleneck else 64)
        width = groups * width_per_group

        self.padding = padding
        self.out_features = tuple(out_features)
        self.stem = BasicStem(out_channels=stem_channels, norm=norm, pool=stem_pool)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        in_channels, total_stride = stem_channels, 4
        for index, (stage, blocks) in enumerate(zip(STAGES, DEPTHS[depth])):
            dilation = res5_dilation if stage == "res5" else 1
            stride = 1 if stage == "res2" or dilation > 1 else 2
            make_one = None
            if gate != "none" and stage in gate_stages:
                make_one = partial(
                    make_gate, gate, stage=stage, reduction=reduction, bias=gate_bias, norm=gate_norm or norm
                )
            make_block = partial(BasicBlock, norm=norm, dilation=dilation, gate=make_one)
            if bottleneck:
                make_block = partial(
                    Bottleneck, bottleneck_channels=width << index, groups=groups, stride_in_1x1=stride_in_1x1,
                    norm=norm, dilation=dilation, gate=make_one,
                )  # fmt: skip
            out_channels = channels << index
            self.add_module(
                stage,
                Stage(
                    make_block(in_channels, out_channels, stride=stride),
                    *(make_block(out_channels, out_channels) for _ in range(blocks - 1)),
                ),
            )
            in_channels, total_stride = out_channels, total_stride * stride
            self.channels[stage], self.strides[stage] = out_channels, total_stride
        self._initialise(gate_init)

    def _initialise(self, gate_init: str) -> None:
        for module in self.modules():
            if isinstance(module, Conv2d):  # the trunk's; a gate's own layers keep PyTorch's values
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if gate_init == "identity":
            for block in self.blocks():
                block.keep_function()

    def blocks(self) -> list[ResidualBlock]:
        """All residual blocks, first to last."""
        return [block for stage in STAGES if hasattr(self, stage) for block in getattr(self, stage)]

    def freeze(self, freeze_at: int) -> None:
        """Fix the stem (1), `res2` too (2), and so on; 0 fixes nothing."""
        for number, name in enumerate(("stem", *STAGES), start=1):
            if number <= freeze_at:
                part = getattr(self, name)
                part.requires_grad_(False)
                freeze_norms(part)

    def features(
        self, x: torch.Tensor, area: ValidArea | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, ValidArea | None]]:
        """The feature maps by stage, and the area of each."""
        maps: dict[str, torch.Tensor] = {}
        areas: dict[str, ValidArea | None] = {}
        x, area = self.stem(x, area)
        for stage in STAGES:
            x, area = getattr(self, stage)(x, area)
            if stage in self.out_features:
                maps[stage], areas[stage] = x, area
            if len(maps) == len(self.out_features):
                break
        return maps, areas

    def forward(self, x: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> dict[str, torch.Tensor]:
        """Feature maps.

        Args:
            x: (N, 3, H, W), normalised.
            sizes: (height, width) in pixels of each image, at the top left of `x`.

        Returns:
            stage name to (N, C, H / stride, W / stride).

        Raises:
            ConfigError: `padding` is not "keep" and there are no sizes.
        """
        return self.features(x, image_area(self.padding, sizes))[0]


def image_area(padding: str, sizes: Sequence[Sequence[int]] | None) -> ValidArea | None:
    """The area that `padding` asks a backbone to follow; None under "keep"."""
    if padding == "keep":
        return None
    if sizes is None:
        raise ConfigError(f"MODEL.GATE.PADDING {padding} needs the sizes of the images, and none were given.")
    return ValidArea.of(sizes, exact=padding == "exact")


def _check(key: str, value: object, allowed: Sequence | dict) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} {value!r} is unknown: use one of {', '.join(map(str, allowed))}.")
