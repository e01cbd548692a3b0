"""Backward passes and moments that PyTorch's own layers are made of, without the layers.

Uses: `threshold_backward`, `native_batch_norm_backward` and `convolution_backward` of `torch.ops.aten`, and
`torch.batch_norm_update_stats`. There from PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: the formulas, in more passes over the maps; equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def relu_backward(grad: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The gradient of the input of a ReLU that gave `out`."""
    if hasattr(torch.ops.aten, "threshold_backward"):
        return torch.ops.aten.threshold_backward(grad, out, 0)
    return grad.masked_fill(out <= 0, 0)


def channel_moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance, (C,) each, over the cells of (1, C, H, W), in one pass, float32 at least."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    if hasattr(torch, "batch_norm_update_stats"):
        unused = image.new_zeros(image.shape[1], dtype=dtype)  # running statistics, whose type the result gets
        return torch.batch_norm_update_stats(image, unused, unused.clone(), 0.0)
    variance, mean = torch.var_mean(image.to(dtype), (0, 2, 3), correction=0)
    return mean, variance


def channel_sums(grad: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sum(grad * image) and sum(grad), (C,) each, over the cells of (1, C, H, W), float32 at least.

    They are what a batch norm of mean 0 and deviation 1 sends to its weight and bias: one pass, and no product written.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    if hasattr(torch.ops.aten, "native_batch_norm_backward"):
        zeros = image.new_zeros(image.shape[1], dtype=dtype)
        ones = torch.ones_like(zeros)
        return torch.ops.aten.native_batch_norm_backward(
            grad, image, ones, None, None, zeros, ones, True, 0.0, [False, True, True]
        )[1:]
    return (grad.to(dtype) * image).sum((0, 2, 3)), grad.to(dtype).sum((0, 2, 3))


def pointwise_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mask: Sequence[bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """The gradients of x, weight and bias of a 1 x 1 convolution, those that `mask` names, where its result has `grad`.

    Args:
        grad: (N, C, H, W).
        x: (N, C_in, H, W).
        weight: (C, C_in, 1, 1).
    """
    if hasattr(torch.ops.aten, "convolution_backward"):
        return torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, list(mask)
        )
    return (
        F.conv2d(grad, weight.transpose(0, 1)) if mask[0] else None,
        torch.einsum("nohw,nihw->oi", grad, x)[:, :, None, None] if mask[1] else None,
        grad.sum((0, 2, 3)) if mask[2] else None,
    )
