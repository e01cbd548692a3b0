"""By which operator a convolution is computed: PyTorch's, but where another is faster or it would crash."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .small_maps import convolve_by_product, takes_product
from .strided_pointwise import take_strided_cells


def convolution(conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What `conv` makes of `x` (N, C_in, H, W) with this weight and bias: (N, C_out, H', W')."""
    if takes_product(conv, x):
        return convolve_by_product(x, weight, bias, conv.stride, conv.padding)
    x, stride = take_strided_cells(conv, x)
    return F.conv2d(x, weight, bias, stride, conv.padding, conv.dilation, conv.groups)
