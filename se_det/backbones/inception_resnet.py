"""Inception-ResNet-v2 (Szegedy et al., arXiv 1602.07261), with gates on its residual branches."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.pool import Pool
from ..layers.valid_area import ValidArea
from .blocks import GatedBlock, GateMaker, Stage
from .conv_units import ConvReLU
from .trunk import Trunk

EPSILON = 1e-3  # of the norms, as in the authors' network


@dataclass(frozen=True)
class Step:
    """A convolution of a branch.

    Attributes:
        kernel: height and width.
        valid: the authors' network has no padding here, see `InceptionResNetV2`.
    """

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    valid: bool = False


conv3x3 = partial(Step, kernel=(3, 3))
downsample = partial(Step, kernel=(3, 3), stride=2, valid=True)

# The paper's figures 3 to 19 as the authors released the network (TF-Slim, inception_resnet_v2). A branch is a tuple of
# steps; MIXED modules end in a pool too: with a projection of that many channels, or None for a maximum of stride 2.
STEM_STEPS = {"conv1": Step(32, (3, 3), stride=2, valid=True), "conv2": conv3x3(32, valid=True), "conv3": conv3x3(64)}
MIXED_5B = (((Step(96),), (Step(48), Step(64, (5, 5))), (Step(64), conv3x3(96), conv3x3(96))), 64)
MIXED_6A = (((downsample(384),), (Step(256), conv3x3(256), downsample(384))), None)
MIXED_7A = (
    ((Step(256), downsample(384)), (Step(256), downsample(288)), (Step(256), conv3x3(288), downsample(320))),
    None,
)
BLOCK35 = ((Step(32),), (Step(32), conv3x3(32)), (Step(32), conv3x3(48), conv3x3(64)))
BLOCK17 = ((Step(192),), (Step(128), Step(160, (1, 7)), Step(192, (7, 1))))
BLOCK8 = ((Step(192),), (Step(192), Step(224, (1, 3)), Step(256, (3, 1))))

Branches = tuple[tuple[Step, ...], ...]


def convolution(channels: int, step: Step, *, norm: str, aligned: bool) -> ConvReLU:
    """The layer of a step."""
    height, width = step.kernel
    padding = (0, 0) if step.valid and not aligned else (height // 2, width // 2)
    return ConvReLU(channels, step.channels, step.kernel, stride=step.stride, padding=padding, norm=norm)


def chain(channels: int, steps: tuple[Step, ...], *, norm: str, aligned: bool) -> Stage:
    """The layers of steps after one another."""
    layers = []
    for step in steps:
        layers.append(convolution(channels, step, norm=norm, aligned=aligned))
        channels = step.channels
    return Stage(*layers)


class Parallel(nn.Module):
    """Branches `branch0`, `branch1`, ... of the same input, whose outputs are concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        outputs, areas = zip(*(branch(x, area) for branch in self.children()))
        return torch.cat(outputs, 1), areas[0]


class ResidualInception(GatedBlock):
    """relu(x + scale * gate(U)), U a linear 1 x 1 convolution of the concatenated branches.

    Args:
        scale: the paper's factor (section 3.3) that keeps the sum stable.
        rectify: False leaves out the ReLU.
        gate: makes the gate for a number of channels, or None for no gate.
    """

    def __init__(
        self, channels: int, branches: Branches, *, scale: float, rectify: bool = True, norm: str,
        gate: GateMaker | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.branches = Parallel(*(chain(channels, steps, norm=norm, aligned=True) for steps in branches))
        self.project = Conv2d(sum(steps[-1].channels for steps in branches), channels, 1)
        self.scale = scale
        self.rectify = rectify
        self.gate = gate(channels) if gate else None

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C, H, W) to the same shape, and the area, which stays."""
        u = self.project(self.branches(x, area)[0], area)
        if self.gate is not None:
            u = self.gate(u, area)
        y = x + self.scale * u
        return (F.relu_(y) if self.rectify else y), area

    def compensating_weights(self) -> list[torch.Tensor]:
        return [self.project.weight, self.project.bias]


class InceptionResNetV2(Trunk):
    """Inception-ResNet-v2: `res2` ends before the first Inception module, `res3` to `res5` with the 10 blocks of each
    kind; 1536 channels at last.

    The SE paper does not say where the gate sits. It is on the residual branch of each of the forty blocks, on U before
    its scale and the addition, as in ResNets; the stem and the three modules without a shortcut have none.

    Args:
        aligned: pad where the authors' network does not, so that strides are exactly 4 to 32 and the maps lie over the
            image as a detector expects; the weights are the same. False is the authors' network, for classification.
        common: see `Trunk`.
    """

    def __init__(self, *, norm: str = "BN", aligned: bool = True, **common: Any) -> None:
        super().__init__(norm=norm, **common)
        make = partial(convolution, norm=norm, aligned=aligned)
        pool = partial(Pool, "max", 3, stride=2, padding=1 if aligned else 0)

        def mixed(channels: int, module: tuple[Branches, int | None]) -> Parallel:
            branches, projection = module
            last: nn.Module = pool()
            if projection:
                last = Stage(
                    OrderedDict(pool=Pool("avg", 3, padding=1, count_padding=False),
                                proj=make(channels, Step(projection)))
                )  # fmt: skip
            return Parallel(*(chain(channels, steps, norm=norm, aligned=aligned) for steps in branches), last)

        def blocks(stage: str, channels: int, branches: Branches, count: int, scale: float) -> list[nn.Module]:
            block = partial(ResidualInception, channels, branches, norm=norm, gate=self.gate_factory(stage))
            return [block(scale=scale) for _ in range(count)]

        stem: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for name, step in STEM_STEPS.items():
            stem[name] = make(channels, step)
            channels = step.channels
        self.stem = Stage(stem)
        self.add_stage(
            "res2",
            Stage(OrderedDict(pool=pool(), conv1=make(64, Step(80)), conv2=make(80, conv3x3(192, valid=True)))),
            channels=192, stride=4,
        )  # fmt: skip
        self.add_stage(
            "res3",
            Stage(OrderedDict(pool=pool(), mixed=mixed(192, MIXED_5B),
                              blocks=Stage(*blocks("res3", 320, BLOCK35, 10, 0.17)))),
            channels=320, stride=8,
        )  # fmt: skip
        self.add_stage(
            "res4",
            Stage(OrderedDict(mixed=mixed(320, MIXED_6A), blocks=Stage(*blocks("res4", 1088, BLOCK17, 20, 0.10)))),
            channels=1088, stride=16,
        )  # fmt: skip
        last = ResidualInception(2080, BLOCK8, scale=1.0, rectify=False, norm=norm, gate=self.gate_factory("res5"))
        self.add_stage(
            "res5",
            Stage(OrderedDict(mixed=mixed(1088, MIXED_7A),
                              blocks=Stage(*blocks("res5", 2080, BLOCK8, 9, 0.20), last),
                              conv1=make(2080, Step(1536)))),
            channels=1536, stride=32,
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, ConvReLU) and hasattr(module.norm, "running_var"):
                module.norm.eps = EPSILON
        self.init_weights()
