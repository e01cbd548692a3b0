"""Deformable convolution (Dai et al., arXiv 1703.06211; modulated: Zhu et al., 1811.11168) by torchvision."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from .conv import Conv2d
from .on_cpu import on_cpu_where_missing
from .valid_area import ValidArea

_deform_conv2d = on_cpu_where_missing(deform_conv2d)


class DeformConv2d(Conv2d):
    """A convolution whose kernel's points are moved: with the arguments of `Conv2d`, and without a bias."""

    def forward(
        self,
        x: torch.Tensor,
        area: ValidArea | None = None,
        *,
        offset: torch.Tensor,
        factor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W').

        Args:
            area: of `x`.
            offset: (N, 2 G k k, H', W') y and x of each point for each of G groups of channels, in cells.
            factor: (N, G k k, H', W') of each point's value; None for 1.
        """
        # The operator has no half precision on CPUs, and under autocast none of its own.
        kind = torch.promote_types(x.dtype, torch.float32)
        given = self._own(x, area).to(kind), offset.to(kind), self.weight.to(kind)
        bias = None if self.bias is None else self.bias.to(kind)  # of a norm that was folded
        y = _deform_conv2d(
            *given, bias, stride=self.stride, padding=self.padding, dilation=self.dilation,
            mask=None if factor is None else factor.to(kind),
        )  # fmt: skip
        return self.normalize(y.to(x.dtype), area)

    def forward_relu(
        self,
        x: torch.Tensor,
        area: ValidArea | None = None,
        *,
        offset: torch.Tensor,
        factor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """relu of `forward`."""
        return F.relu_(self.forward(x, area, offset=offset, factor=factor))
