"""BN-Inception (Ioffe and Szegedy, arXiv 1502.03167) as the SE authors train it, with gates on its modules."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.pool import Pool
from ..layers.valid_area import ValidArea
from .blocks import GatedBlock, GateMaker, Stage
from .conv_units import ConvReLU
from .trunk import Trunk


@dataclass(frozen=True)
class Widths:
    """Channels of an Inception module's branches; a module without `single` has stride 2 and passes its pool on.

    Attributes:
        single: the 1 x 1 branch.
        three: 1 x 1, then 3 x 3.
        double: 1 x 1, then both 3 x 3s.
        pool: "avg" or "max", of 3 x 3.
        projection: the 1 x 1 after the pool.
    """

    three: tuple[int, int]
    double: tuple[int, int]
    pool: str
    single: int = 0
    projection: int = 0

    @property
    def stride(self) -> int:
        return 1 if self.single else 2


# models/SE-BN-Inception.prototxt of https://github.com/hujie-frank/SENet. Stages begin where the stride doubles.
MODULES = {
    "res3": {
        "3a": Widths(single=64, three=(64, 64), double=(64, 96), pool="avg", projection=32),
        "3b": Widths(single=64, three=(64, 96), double=(64, 96), pool="avg", projection=64),
    },
    "res4": {
        "3c": Widths(three=(128, 160), double=(64, 96), pool="max"),
        "4a": Widths(single=224, three=(64, 96), double=(96, 128), pool="avg", projection=128),
        "4b": Widths(single=192, three=(96, 128), double=(96, 128), pool="avg", projection=128),
        "4c": Widths(single=160, three=(128, 160), double=(128, 160), pool="avg", projection=128),
        "4d": Widths(single=96, three=(128, 192), double=(160, 192), pool="avg", projection=128),
    },
    "res5": {
        "4e": Widths(three=(128, 192), double=(192, 256), pool="max"),
        "5a": Widths(single=352, three=(192, 320), double=(160, 224), pool="avg", projection=128),
        "5b": Widths(single=352, three=(192, 320), double=(192, 224), pool="max", projection=128),
    },
}


class Inception(GatedBlock):
    """Parallel branches whose outputs are concatenated and gated. Layers have the names of the Caffe network.

    Args:
        gate: makes the gate for a number of channels, or None for no gate.
    """

    def __init__(self, in_channels: int, widths: Widths, *, norm: str, gate: GateMaker | None) -> None:
        super().__init__()
        stride = widths.stride

        def add(name: str, channels: int, out_channels: int, kernel: int, stride: int = 1) -> str:
            convolution = ConvReLU(channels, out_channels, kernel, stride=stride, padding=kernel // 2, norm=norm)
            self.add_module(name, convolution)
            return name

        self.branches: list[list[str]] = []
        if widths.single:
            self.branches.append([add("1x1", in_channels, widths.single, 1)])
        reduced, out = widths.three
        self.branches.append([add("3x3_reduce", in_channels, reduced, 1), add("3x3", reduced, out, 3, stride)])
        reduced, out = widths.double
        self.branches.append(
            [
                add("double3x3_reduce", in_channels, reduced, 1),
                add("double3x3a", reduced, out, 3),
                add("double3x3b", out, out, 3, stride),
            ]
        )
        self.pool = Pool(widths.pool, 3, padding=1) if stride == 1 else CeilMaxPool2d()
        if widths.projection:
            add("pool_proj", in_channels, widths.projection, 1)
        self.branches.append(["pool", "pool_proj"] if widths.projection else ["pool"])
        self.out_channels = widths.single + widths.three[1] + widths.double[1] + (widths.projection or in_channels)
        self.gate = gate(self.out_channels) if gate else None
        self._next: tuple[Inception, ...] = ()  # in a tuple, so that it is not registered as a part of this module

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H / stride, W / stride) and its area."""
        outputs = []
        for branch in self.branches:
            y, after = x, area
            for name in branch:
                y, after = self.get_submodule(name)(y, after)
            outputs.append(y)
        u = torch.cat(outputs, 1)
        return (u if self.gate is None else self.gate(u, after)), after

    def compensating_weights(self) -> list[torch.Tensor]:
        """The norms that U comes out of; where the pool passes through, the next module's first convolutions."""
        if "pool_proj" not in self.branches[-1]:
            return self._next[0].input_weights() if self._next else []
        norms = [self.get_submodule(branch[-1]).norm for branch in self.branches]
        return [tensor for norm in norms for tensor in (norm.weight, norm.bias)]

    def set_successor(self, module: Inception) -> None:
        """Say which module alone reads this one's output."""
        self._next = (module,)

    def input_weights(self) -> list[torch.Tensor]:
        """The weights of the convolutions that read the module's input, or its average."""
        first = [branch[0] if branch[0] != "pool" else branch[1] for branch in self.branches]
        return [self.get_submodule(name).weight for name in first]


class CeilMaxPool2d(nn.Module):
    """3 x 3 maximum of stride 2 that gives ceil(H / 2) x ceil(W / 2), as the convolutions beside it do.

    On even sides it is Caffe's pooling without padding, rounded up. On odd sides that has one cell less than the
    convolutions, and Caffe cannot concatenate the branches; here the last window reaches beyond the border.
    """

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        if area is not None and area.exact:
            x = area.zero_padding(x)
        # The input comes out of ReLUs and gates, so zeros never win a maximum.
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2)), 3, 2), None if area is None else area.after(3, 2, 1)


class BNInception(Trunk):
    """BN-Inception: `res2` ends in `conv2` (stride 4), `res3` in 3b, `res4` in 4d, `res5` in 5b.

    A gate is on each module's output after the concatenation, on all ten modules, those of stride 2 too; `res2` has
    none. Parameter names are those of the Caffe network within stages: `res3.inception_3a.3x3_reduce.weight`.

    Args:
        common: see `Trunk`.
    """

    def __init__(self, *, norm: str = "BN", **common: Any) -> None:
        super().__init__(norm=norm, **common)
        self.stem = Stage(
            OrderedDict(
                conv1=ConvReLU(3, 64, 7, stride=2, padding=3, norm=norm), pool=Pool("max", 3, stride=2, ceil=True)
            )
        )
        conv2 = OrderedDict()
        conv2["3x3_reduce"] = ConvReLU(64, 64, 1, norm=norm)
        conv2["3x3"] = ConvReLU(64, 192, 3, padding=1, norm=norm)
        self.add_stage("res2", Stage(OrderedDict(conv2=Stage(conv2))), channels=192, stride=4)
        channels, stride = 192, 4
        for stage, modules in MODULES.items():
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if stage == "res3":
                layers["pool"] = Pool("max", 3, stride=2, ceil=True)
            for name, widths in modules.items():
                module = Inception(channels, widths, norm=norm, gate=self.gate_factory(stage))
                layers[f"inception_{name}"] = module
                channels = module.out_channels
            stride *= 2
            self.add_stage(stage, Stage(layers), channels=channels, stride=stride)
        for module, following in ((self.res4.inception_3c, self.res4.inception_4a),
                                  (self.res5.inception_4e, self.res5.inception_5a)):  # fmt: skip
            module.set_successor(following)
        self.init_weights()
