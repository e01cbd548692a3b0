"""Convolutions of many channels over few cells, in training on CPUs in bfloat16: as one matrix product.

oneDNN's kernels share a weight among the cells of a row. On maps of a few cells a side (the last stages of a network at
64 to 320 px) there are hardly any to share among: of the time of a ResNet-18's step at 64 px, a half was spent on its
three convolutions of 512 channels over 2 x 2 cells, of which each product here takes a sixth of the time, forward and
backward (Intel Xeon with AMX, PyTorch 2.14.1). In float32, and over more cells, oneDNN's are as fast.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .tracing import is_traced

LEAST_CHANNELS = 128
CELLS_PER_CHANNEL = 4  # of the output, over the whole batch: above, the copies of the input cost what is gained


def takes_product(conv: nn.Conv2d, x: torch.Tensor) -> bool:
    """Whether `conv` of `x` (N, C, H, W) is faster as `convolve_by_product`."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or not _in_bfloat16(x):
        return False
    kernel, channels = conv.kernel_size[0], min(conv.in_channels, conv.out_channels)
    if conv.kernel_size != (kernel, kernel) or kernel == 1 or conv.groups > 1 or channels < LEAST_CHANNELS:
        return False
    if max(conv.dilation) > 1 or not isinstance(conv.padding, tuple) or is_traced():
        return False
    rows, columns = (_cells(conv, x, axis) for axis in (0, 1))
    return 0 < rows * columns * len(x) <= CELLS_PER_CHANNEL * channels


def convolve_by_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> torch.Tensor:
    """`F.conv2d(x, weight, bias, stride, padding)` in bfloat16, (N, C, H, W) to (N, O, H', W'), channels last."""
    with torch.autocast("cpu", enabled=False):
        y = _Product.apply(x.bfloat16(), weight.bfloat16(), stride, padding)
        return y if bias is None else y + bias.bfloat16()[:, None, None]


def _in_bfloat16(x: torch.Tensor) -> bool:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


def _cells(conv: nn.Conv2d, x: torch.Tensor, axis: int) -> int:
    """The side of the output."""
    return (x.shape[2 + axis] + 2 * conv.padding[axis] - conv.kernel_size[axis]) // conv.stride[axis] + 1


class _Product(torch.autograd.Function):
    """The cells of the output times those of the input that each sees, laid out in rows: (N H' W', k k C)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> torch.Tensor:
        kernel = weight.shape[-1]
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        seen = padded.unfold(1, kernel, stride[0]).unfold(2, kernel, stride[1])  # (N, H', W', C, k, k)
        images, rows, columns = seen.shape[:3]
        seen = seen.permute(0, 1, 2, 4, 5, 3).reshape(images * rows * columns, -1)
        flat = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        ctx.save_for_backward(seen, flat)
        ctx.sides = (x.shape, weight.shape, stride, padding, rows, columns)
        return (seen @ flat.t()).view(images, rows, columns, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, flat = ctx.saved_tensors
        (images, channels, height, width), (outputs, _, kernel, _), stride, padding, rows, columns = ctx.sides
        gradient = gradient.permute(0, 2, 3, 1).reshape(images * rows * columns, outputs)
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient.t() @ seen).view(outputs, kernel, kernel, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            of_seen = (gradient @ flat).view(images, rows, columns, kernel, kernel, channels)
            padded = gradient.new_zeros(images, height + 2 * padding[0], width + 2 * padding[1], channels)
            for i in range(kernel):
                for j in range(kernel):
                    ends = i + stride[0] * (rows - 1) + 1, j + stride[1] * (columns - 1) + 1
                    padded[:, i : ends[0] : stride[0], j : ends[1] : stride[1]] += of_seen[:, :, :, i, j]
            of_x = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width].permute(0, 3, 1, 2)
        return of_x, of_weight, None, None
