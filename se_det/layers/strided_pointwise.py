"""A crash of PyTorch's own that convolutions are kept off.

On CPUs, oneDNN's backward pass of a 1 x 1 convolution with a stride, on maps that lie channels last, writes beyond its
memory where there are fewer input channels than the widest vector has float32 numbers (8 with AVX2, 16 with AVX-512):
seen in PyTorch 2.14.1, which ends in SIGSEGV or SIGABRT. Taking every other cell first, and convolving those without a
stride, computes the same.
"""

from __future__ import annotations

import torch
from torch import nn

WIDEST_VECTOR = 16  # float32 numbers


def take_strided_cells(conv: nn.Conv2d, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The input (N, C, H, W) and the stride that `conv` is to be computed with: its own, but where that would crash.

    Args:
        conv: any convolution; only 1 x 1 ones with a stride and few input channels are concerned.
    """
    if (
        x.shape[1] >= WIDEST_VECTOR
        or max(conv.stride) == 1
        or max(conv.kernel_size) > 1
        or max(conv.padding) > 0
        or x.device.type != "cpu"
        or not torch.is_grad_enabled()
    ):
        return x, conv.stride
    cells = x[:, :, :: conv.stride[0], :: conv.stride[1]]
    return cells.contiguous(memory_format=torch.channels_last), (1, 1)
