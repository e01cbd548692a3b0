"""A convolution with its norm, under Detectron2's parameter names, that knows about padded batches."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .convolution import convolution
from .norms import FrozenBatchNorm2d, GroupNorm, apply_frozen, get_norm
from .onednn import PackedConv2d
from .valid_area import ValidArea


class Conv2d(nn.Conv2d):
    """Convolution, then a norm kept as `.norm`.

    Args:
        kernel_size, padding: one number for both sides, or (height, width) of a convolution that keeps the map's size.
        norm: name of the norm, "" for none.
        bias: whether the convolution has a bias; None: where it has no norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "",
        bias: bool | None = None,
    ) -> None:
        bias = norm == "" if bias is None else bias
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=bias)
        self.norm = get_norm(norm, out_channels)
        self.packed: PackedConv2d | None = None  # see `layers.onednn`

    def area_after(self, area: ValidArea | None) -> ValidArea | None:
        """Where each image lies on this convolution's output."""
        if area is None:
            return None
        return area.after(self.kernel_size[0], self.stride[0], self.padding[0], self.dilation[0])

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W'); `area` is that of `x`."""
        packed = self.packed_conv(x)
        if packed is not None:
            return packed(self._own(x, area))
        if isinstance(self.norm, FrozenBatchNorm2d):
            return apply_frozen(self, self._own(x, area))
        return self.normalize(self.convolve(x, area), area)

    def forward_add(self, x: torch.Tensor, area: ValidArea | None = None, *, residual: torch.Tensor) -> torch.Tensor:
        """`forward` and `residual`, of its size, over which the result may be written."""
        packed = self.packed_conv(x)
        if packed is not None:
            return packed(self._own(x, area), residual=residual, overwrite=True)
        return Conv2d.forward(self, x, area).add_(residual)

    def forward_relu(
        self, x: torch.Tensor, area: ValidArea | None = None, *, residual: torch.Tensor | None = None,
        overwrite: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """relu of `forward`, to which `residual`, of its size, is added before; with `overwrite` the result may be
        written over it."""
        packed = self.packed_conv(x)
        if packed is not None:
            return packed(self._own(x, area), relu=True, residual=residual, overwrite=overwrite)
        y = Conv2d.forward(self, x, area)
        return F.relu_(y if residual is None else y.add_(residual))

    def packed_conv(self, x: torch.Tensor) -> PackedConv2d | None:
        """How this convolution runs on `x` where it was packed for inference and `x` can be taken so."""
        return self.packed if self.packed is not None and self.packed.supports(x) else None

    def convolve(self, x: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """The convolution without its norm."""
        return convolution(self, self._own(x, area), self.weight, self.bias)

    def normalize(self, x: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """The norm of what `convolve` returned; `area` is still that of the convolution's input."""
        if self.norm is None:
            return x
        if area is not None and area.exact and isinstance(self.norm, GroupNorm):
            return self.norm(x, self.area_after(area))
        return self.norm(x)

    def _own(self, x: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
        """Under padding "exact" a kernel reads zeros outside each image."""
        mixes = area is not None and area.exact and max(self.kernel_size) > 1
        return area.zero_padding(x) if mixes else x
