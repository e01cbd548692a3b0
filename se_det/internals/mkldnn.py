"""oneDNN's convolutions with what follows them inside, which torch.compile's code for CPUs calls.

Uses: `torch.ops.mkldnn._convolution_pointwise`, its overload `.binary`, `._convolution_pointwise_.binary`,
`._reorder_convolution_weight` and `._is_mkldnn_bf16_supported`. There from PyTorch 2.6, the lowest that the package
runs on, to 2.14, in builds with oneDNN.

Without: `is_available` is False, and inference runs PyTorch's own convolution, ReLU and addition one after another;
`supports_bfloat16` is False, and bfloat16 is not used on CPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import nn

OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


def is_available() -> bool:
    """Whether this PyTorch has the operators: builds for some processors have not."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)


def supports_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 convolutions for this processor."""
    return _asks_for_bfloat16(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None))


@functools.cache
def _asks_for_bfloat16(supported: Callable[[], bool] | None) -> bool:
    return supported is not None and supported()


def convolution(
    conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, relu: bool,
    residual: torch.Tensor | None, overwrite: bool = False,
) -> torch.Tensor:  # fmt: skip
    """`conv` with this weight and bias, with `residual` added, and rectified, in one pass.

    Args:
        overwrite: write the result over `residual`, which lies channels last, as `x` does.
    """
    how = (conv.padding, conv.stride, conv.dilation, conv.groups)
    if residual is None:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *how, "relu" if relu else "none", [], "")
    if overwrite:
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, weight, bias, *how, "add", 1.0, "relu" if relu else None, [], None
        )
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, residual, weight, bias, *how, "add", 1.0, "relu" if relu else None, [], None
    )


def laid_out_weight(conv: nn.Conv2d, shape: Sequence[int]) -> torch.Tensor:
    """The weight of `conv` as oneDNN reads it fastest for inputs of this shape; nothing else can read it."""
    return torch.ops.mkldnn._reorder_convolution_weight(
        conv.weight, conv.padding, conv.stride, conv.dilation, conv.groups, list(shape)
    )
