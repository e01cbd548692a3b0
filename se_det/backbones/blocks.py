"""The residual blocks of ResNet and ResNeXt, with a gate on the branch. Parameter names are Detectron2's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.area import ValidArea
from ..layers.conv import Conv2d
from ..layers.gates import SE

GateMaker = Callable[[int], "SE | None"]


class ResidualBlock(nn.Module):
    """The shortcut and the gate that every block has; a subclass provides `branch`.

    Args:
        gate: makes the gate for a number of channels, or None for no gate.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, gate: GateMaker | None = None
    ) -> None:
        super().__init__()
        self.shortcut = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = Conv2d(in_channels, out_channels, 1, stride=stride, norm=norm)
        self.gate = gate(out_channels) if gate else None

    def branch(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        """U, the output of the branch's last norm, and its area."""
        raise NotImplementedError

    def last_norm(self) -> nn.Module:
        """The norm that U comes out of."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H', W') and its area."""
        shortcut = x if self.shortcut is None else self.shortcut(x, area)
        u, area = self.branch(x, area)
        if self.gate is not None:
            u = self.gate(u, area)
        return F.relu_(u.add_(shortcut)), area

    def keep_function(self) -> None:
        """Give the fresh gate the factor 0.5 and double the norm before it: the block computes what it did without."""
        if self.gate is None:
            return
        self.gate.leave_unchanged()
        norm = self.last_norm()
        with torch.no_grad():
            norm.weight.mul_(2)
            norm.bias.mul_(2)


class BasicBlock(ResidualBlock):
    """Two 3 x 3 convolutions (ResNet-18 and -34)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, norm: str,
        gate: GateMaker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, gate=gate)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, norm=norm)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation, norm=norm)

    def branch(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        x, area = F.relu_(self.conv1(x, area)), self.conv1.area_after(area)
        return self.conv2(x, area), area

    def last_norm(self) -> nn.Module:
        return self.conv2.norm


class Bottleneck(ResidualBlock):
    """1 x 1, grouped 3 x 3, 1 x 1 (ResNet-50 and up, ResNeXt).

    Args:
        bottleneck_channels: channels of the 3 x 3 convolution.
        stride_in_1x1: put the stride in the first convolution, as the Caffe and MSRA weights need it, not in the 3 x 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, bottleneck_channels: int, stride: int = 1, dilation: int = 1,
        groups: int = 1, stride_in_1x1: bool = False, norm: str, gate: GateMaker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, gate=gate)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm)
        self.conv2 = Conv2d(
            bottleneck_channels, bottleneck_channels, 3, stride=stride_3x3, padding=dilation, dilation=dilation,
            groups=groups, norm=norm,
        )  # fmt: skip
        self.conv3 = Conv2d(bottleneck_channels, out_channels, 1, norm=norm)

    def branch(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        x, area = F.relu_(self.conv1(x, area)), self.conv1.area_after(area)
        x, area = F.relu_(self.conv2(x, area)), self.conv2.area_after(area)
        return self.conv3(x, area), area

    def last_norm(self) -> nn.Module:
        return self.conv3.norm


class Stage(nn.Sequential):
    """Blocks after one another, passing the area along."""

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        for block in self:
            x, area = block(x, area)
        return x, area
