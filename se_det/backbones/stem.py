"""The stems of ResNet and SENet-154."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.bfloat16_pool import max_pool_3x3
from ..layers.conv import Conv2d
from ..layers.valid_area import ValidArea

STEM_POOLS = ("pad1", "ceil")


class BasicStem(nn.Module):
    """7 x 7 convolution of stride 2, ReLU, 3 x 3 maximum of stride 2: stride 4.

    Args:
        pool: "pad1", padding 1 (torchvision, Detectron2); "ceil", padding 0 in ceil mode (the Caffe networks).
    """

    def __init__(self, *, out_channels: int = 64, norm: str, pool: str = "pad1") -> None:
        super().__init__()
        if pool not in STEM_POOLS:
            raise ConfigError(f"MODEL.RESNETS.STEM_POOL '{pool}' is unknown: use one of {', '.join(STEM_POOLS)}.")
        self._add_convolutions(out_channels, norm)
        self.ceil_mode = pool == "ceil"
        self.pool_padding = 0 if self.ceil_mode else 1

    def _add_convolutions(self, out_channels: int, norm: str) -> None:
        self.conv1 = Conv2d(3, out_channels, 7, stride=2, padding=3, norm=norm)

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, 3, H, W) and its area to (N, C, H/4, W/4) and its area."""
        for convolution in self.children():
            x, area = convolution.forward_relu(x, area), convolution.area_after(area)
        if area is not None:
            if area.exact:
                x = area.zero_padding(x)  # after a ReLU zero never wins a maximum, like the border's -infinity
            area = area.after(3, 2, self.pool_padding, ceil_mode=self.ceil_mode)
        return max_pool_3x3(x, padding=self.pool_padding, ceil_mode=self.ceil_mode), area


class DeepStem(BasicStem):
    """Three 3 x 3 convolutions, the first of stride 2, in place of the 7 x 7 (SENet-154).

    The first two have half the output's channels.
    """

    def _add_convolutions(self, out_channels: int, norm: str) -> None:
        inner = out_channels // 2
        self.conv1 = Conv2d(3, inner, 3, stride=2, padding=1, norm=norm)
        self.conv2 = Conv2d(inner, inner, 3, padding=1, norm=norm)
        self.conv3 = Conv2d(inner, out_channels, 3, padding=1, norm=norm)
