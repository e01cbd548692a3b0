"""The residual blocks of ResNet and ResNeXt, with a gate on the branch. Parameter names are Detectron2's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import stochastic_depth

from ..errors import ConfigError
from ..internals.module_hooks import is_observed
from ..layers.conv import Conv2d
from ..layers.gated_sum import gated_sum
from ..layers.gates import Gate
from ..layers.tracing import is_traced
from ..layers.valid_area import ValidArea

GateMaker = Callable[[int], "Gate | None"]

# Where a residual block's gate sits (Hu et al., arXiv 1709.01507, figure 5).
PLACEMENTS = ("standard", "pre", "post", "identity")


class GatedBlock(nn.Module):
    """A part of a trunk that may have a gate, as `gate`."""

    gate: Gate | None

    def compensating_weights(self) -> list[torch.Tensor]:
        """The weights whose doubling makes up for a gate of 0.5 exactly; none where nothing inside the block does."""
        raise NotImplementedError

    @property
    def can_preserve_function(self) -> bool:
        """Whether `preserve_function` is possible."""
        return self.gate is None or (self.gate.one_factor and bool(self.compensating_weights()))

    def preserve_function(self) -> None:
        """Give the fresh gate the factor 0.5 and double weights before it: the block computes what it did without.

        Raises:
            ConfigError: no weights of the block make up for the factor.
        """
        if self.gate is None:
            return
        weights = self.compensating_weights()
        if not weights:
            raise ConfigError(
                "MODEL.GATE.INIT identity is not possible here: the gate also scales values that no weight of its own "
                "block produces (PLACEMENT post and identity, and the pooled branch of an Inception module of stride "
                "2), so nothing can make up for its factor. Use INIT paper."
            )
        self.gate.zero_init()
        with torch.no_grad():
            for weight in weights:
                weight.mul_(2)


class ResidualBlock(GatedBlock):
    """The shortcut and the gate that every block has; a subclass provides the branch.

    Args:
        projection_kernel: kernel of a shortcut of stride 2; other shortcuts that convolve have 1 x 1.
        gate: makes the gate for a number of channels, or None for no gate.
        placement: where the gate sits: "standard", on the branch's output U before the addition; "pre", on the
            branch's input; "post", on the block's output, after the addition and its ReLU; "identity", on the
            shortcut (after its convolution, if it has one), parallel to the branch.
        drop_rate: stochastic depth (Huang et al., arXiv 1603.09382): how often, in training, an image goes by the
            shortcut alone; where it does not, the branch counts 1 / (1 - drop_rate) times.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, projection_kernel: int = 1,
        gate: GateMaker | None = None, placement: str = "standard", drop_rate: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.drop_rate = drop_rate
        self.shortcut = None
        if in_channels != out_channels or stride != 1:
            kernel = projection_kernel if stride != 1 else 1
            self.shortcut = Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, norm=norm)
        self.placement = placement
        self.gate = gate(in_channels if placement == "pre" else out_channels) if gate else None

    def forward_to_last(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        """The input of the branch's last convolution, and its area, which that convolution keeps."""
        raise NotImplementedError

    @property
    def last(self) -> Conv2d:
        """The branch's last convolution; U comes out of its norm."""
        raise NotImplementedError

    def forward(
        self, x: torch.Tensor, area: ValidArea | None = None, owned: bool = False
    ) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C_in, H, W) and its area to (N, C_out, H', W') and its area.

        Args:
            owned: nothing but this block reads `x`: in inference the result may be written over it.
        """
        shortcut = x if self.shortcut is None else self.shortcut(x, area)
        overwrite = self.placement == "standard" and (
            owned if self.shortcut is None else _are_unobserved(self.shortcut)
        )
        y, after = self.forward_to_last(self._gated("pre", x, area), area)
        shortcut = self._gated("identity", shortcut, after)
        return self._gated("post", self.end(y, shortcut, after, overwrite=overwrite), after), after

    def end(
        self, y: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None, *, overwrite: bool = False
    ) -> torch.Tensor:
        """From the last convolution's input to the block's output, relu(gate(U) + shortcut); see `gated_sum`."""
        if self.drop_rate and self.training:
            return F.relu_(stochastic_depth(self._branch(y, area), self.drop_rate, "row") + shortcut)
        gate = self.gate if self.placement == "standard" else None
        return gated_sum(self.last, gate, y, shortcut, area, overwrite=overwrite)

    def _branch(self, y: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
        """gate(U)."""
        return self._gated("standard", self.last(y, area), area)

    def _gated(self, place: str, x: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
        return x if self.gate is None or self.placement != place else self.gate(x, area)

    def compensating_weights(self) -> list[torch.Tensor]:
        if self.placement == "standard":
            return [self.last.norm.weight, self.last.norm.bias]
        return [self.conv1.weight] if self.placement == "pre" else []


class BasicBlock(ResidualBlock):
    """Two 3 x 3 convolutions (ResNet-18 and -34).

    Args:
        branch_relu: a ReLU on the branch's output U, before the gate, as in timm's legacy_seresnet18 and -34.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, norm: str,
        branch_relu: bool = False, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, **common)
        self.branch_relu = branch_relu
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, norm=norm)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation, norm=norm)

    def forward_to_last(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        return self.conv1.forward_relu(x, area), self.conv1.area_after(area)

    @property
    def last(self) -> Conv2d:
        return self.conv2

    def end(
        self, y: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None, *, overwrite: bool = False
    ) -> torch.Tensor:
        if not self.branch_relu or (self.drop_rate and self.training):
            return super().end(y, shortcut, area, overwrite=overwrite)
        return F.relu_(self._branch(y, area).add_(shortcut))

    def _branch(self, y: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
        if not self.branch_relu:
            return super()._branch(y, area)
        return self._gated("standard", self.conv2.forward_relu(y, area), area)


class Bottleneck(ResidualBlock):
    """1 x 1, grouped 3 x 3, 1 x 1 (ResNet-50 and up, ResNeXt, SENet-154).

    Args:
        bottleneck_channels: channels of the 3 x 3 convolution.
        reduced_channels: channels of the first 1 x 1 (SENet-154: half the former).
        stride_in_1x1: put the stride in the first convolution, as the Caffe and MSRA weights need it, not in the 3 x 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, bottleneck_channels: int, reduced_channels: int,
        stride: int = 1, dilation: int = 1, groups: int = 1, stride_in_1x1: bool = False, norm: str, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, **common)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, reduced_channels, 1, stride=stride_1x1, norm=norm)
        self.conv2 = Conv2d(
            reduced_channels, bottleneck_channels, 3, stride=stride_3x3, padding=dilation, dilation=dilation,
            groups=groups, norm=norm,
        )  # fmt: skip
        self.conv3 = Conv2d(bottleneck_channels, out_channels, 1, norm=norm)

    def forward_to_last(self, x: torch.Tensor, area: ValidArea | None) -> tuple[torch.Tensor, ValidArea | None]:
        x, area = self.conv1.forward_relu(x, area), self.conv1.area_after(area)
        return self.conv2.forward_relu(x, area), self.conv2.area_after(area)

    @property
    def last(self) -> Conv2d:
        return self.conv3


class Stage(nn.Sequential):
    """Blocks after one another, passing the area along."""

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        before = None
        for block in self:
            if isinstance(before, ResidualBlock) and isinstance(block, ResidualBlock):
                # The map between two blocks is theirs alone, but where a hook may have kept it.
                x, area = block(x, area, _are_unobserved(before, block))
            else:
                x, area = block(x, area)
            before = block
        return x, area


def _are_unobserved(*modules: nn.Module) -> bool:
    """Whether no hook keeps what they take or give; where a compiler looks on, no."""
    return not (torch.is_grad_enabled() or is_traced() or any(map(is_observed, modules)))
