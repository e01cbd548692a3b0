"""ResNet, ResNeXt and SENet-154 trunks with gates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..errors import ConfigError
from .blocks import PLACEMENTS, BasicBlock, Bottleneck, Stage
from .deform_block import DeformBottleneck
from .stem import BasicStem, DeepStem
from .trunk import STAGES, Trunk, check_choice

# Blocks per stage by depth (He et al., arXiv 1512.03385, table 1).
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STEMS = {"basic": BasicStem, "deep": DeepStem}


class ResNet(Trunk):
    """A stem and four stages, `res2` to `res5`, of strides 4 to 32.

    Args:
        depth: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks).
        groups, width_per_group: those of the 3 x 3 convolutions; 32 and 4 make ResNeXt 32x4d.
        stride_in_1x1: see `Bottleneck`.
        stem: "basic" (one 7 x 7 convolution) or "deep" (three 3 x 3).
        stem_channels: channels of the stem.
        stem_pool: see `BasicStem`.
        res2_channels: channels of `res2`, which double from stage to stage; 256 with bottlenecks, 64 without.
        res5_dilation: 1, or 2 to keep `res5` at stride 16.
        reduce_factor: each bottleneck's first 1 x 1 has the channels of its 3 x 3 divided by this.
        projection_kernel: kernel of the shortcuts of stride 2.
        branch_relu: see `BasicBlock`; bottlenecks have none.
        last_stage: the stages after it are not built.
        deform_on_per_stage: whether the 3 x 3 convolutions of each stage are deformable, see `DeformBottleneck`.
        deform_modulated, deform_groups: of these.
        stochastic_depth: the `drop_rate` of the last block, below which the others' rise in equal steps from 0.
        common: see `Trunk`.

    Raises:
        ConfigError: an argument has a value that is not listed above.
    """

    placements = PLACEMENTS

    def __init__(
        self,
        *,
        depth: int = 50,
        groups: int = 1,
        width_per_group: int = 64,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        stem: str = "basic",
        stem_channels: int = 64,
        stem_pool: str = "pad1",
        res2_channels: int | None = None,
        res5_dilation: int = 1,
        reduce_factor: int = 1,
        projection_kernel: int = 1,
        branch_relu: bool = False,
        last_stage: str = "res5",
        deform_on_per_stage: Sequence[bool] = (False, False, False, False),
        deform_modulated: bool = False,
        deform_groups: int = 1,
        stochastic_depth: float = 0.0,
        gate_placement: str = "standard",
        **common: Any,
    ) -> None:
        super().__init__(norm=norm, gate_placement=gate_placement, **common)
        check_choice("MODEL.RESNETS.DEPTH", depth, DEPTHS)
        check_choice("MODEL.RESNETS.RES5_DILATION", res5_dilation, (1, 2))
        bottleneck = depth >= 50
        if not bottleneck and (groups != 1 or width_per_group != 64 or res5_dilation != 1):
            raise ConfigError(
                f"MODEL.RESNETS.DEPTH {depth} has basic blocks, which need NUM_GROUPS 1, WIDTH_PER_GROUP 64 and "
                f"RES5_DILATION 1; got {groups}, {width_per_group} and {res5_dilation}."
            )
        if bottleneck and branch_relu:
            raise ConfigError(f"MODEL.RESNETS.BRANCH_RELU True needs basic blocks, and MODEL.RESNETS.DEPTH is {depth}.")
        if len(deform_on_per_stage) != len(STAGES) or (any(deform_on_per_stage) and not bottleneck):
            raise ConfigError(
                f"MODEL.RESNETS.DEFORM_ON_PER_STAGE {list(deform_on_per_stage)} must say of each of "
                f"{', '.join(STAGES)} whether its bottlenecks, which networks of MODEL.RESNETS.DEPTH 50 and more have, "
                f"are deformable; DEPTH is {depth}."
            )
        channels = res2_channels or (256 if bottleneck else 64)
        width = groups * width_per_group

        self.stem = STEMS[stem](out_channels=stem_channels, norm=norm, pool=stem_pool)
        in_channels, total_stride = stem_channels, 4
        total = sum(DEPTHS[depth])
        rates = (stochastic_depth * block / (total - 1) for block in range(total))
        for index, (stage, blocks) in enumerate(zip(STAGES, DEPTHS[depth])):
            dilation = res5_dilation if stage == "res5" else 1
            stride = 1 if stage == "res2" or dilation > 1 else 2
            shared = {
                "norm": norm, "dilation": dilation, "projection_kernel": projection_kernel,
                "gate": self.gate_factory(stage), "placement": gate_placement,
            }  # fmt: skip
            make_block = partial(BasicBlock, branch_relu=branch_relu, **shared)
            if bottleneck:
                inner = width << index
                deform = {"modulated": deform_modulated, "deform_groups": deform_groups}
                make_block = partial(
                    *((partial(DeformBottleneck, **deform),) if deform_on_per_stage[index] else (Bottleneck,)),
                    reduced_channels=inner // reduce_factor, bottleneck_channels=inner, groups=groups,
                    stride_in_1x1=stride_in_1x1, **shared,
                )  # fmt: skip
            out_channels = channels << index
            total_stride *= stride
            self.add_stage(
                stage,
                Stage(
                    make_block(in_channels, out_channels, stride=stride, drop_rate=next(rates)),
                    *(make_block(out_channels, out_channels, drop_rate=next(rates)) for _ in range(blocks - 1)),
                ),
                channels=out_channels,
                stride=total_stride,
            )
            in_channels = out_channels
            if stage == last_stage:
                break
        self.init_weights()
        for block in self.blocks():
            if isinstance(block, DeformBottleneck):
                block.start_undeformed()
