"""Convolutions as oneDNN, which PyTorch computes them with on a CPU, does them best: for inference.

`nn.Conv2d` lays its weights out for oneDNN at every call, which takes a third of a ResNet-50's time for one image of
224 px, and a ReLU or an addition after it reads and writes the whole map once more. The operators used here lay the
weights out once and finish each value while it is at hand; torch.compile makes the same of a network on a CPU.
"""

from __future__ import annotations

import torch
from torch import nn

from ..errors import DataError
from ..internals import mkldnn
from ..internals.tensor_version import tensor_version
from .tracing import is_traced

# On more cells a layout costs little beside the products, and is not worth its memory.
MOST_CELLS = 1024
MOST_CELLS_BFLOAT16 = 4096  # whose products are several times as fast, and weights half as large
IMAGE_CHANNELS = 3  # what a network's first convolution reads


class PackedConv2d:
    """How a convolution without a norm runs on a CPU in inference: what follows it inside, and its weight laid out once
    where the size of maps does not change.

    oneDNN wants other layouts for other sizes, and to make one of another takes up to fifty times as long as the
    convolution. So a weight is laid out when a size comes the second time in a row, and used for that size only.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv = conv
        self._laid_out: torch.Tensor | None = None
        self._for: tuple | None = None  # size, and the weight's version, of what is laid out
        self._last: tuple | None = None

    def supports(self, x: torch.Tensor) -> bool:
        """Whether `x` can be taken: on a CPU, in a type that oneDNN has, without gradients and not under autocast."""
        if not is_cpu_inference(x):
            return False
        return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and mkldnn.supports_bfloat16())

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, residual: torch.Tensor | None = None,
        given: tuple[torch.Tensor, torch.Tensor | None] | None = None, overwrite: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """The convolution, with `residual` added, and rectified, in one pass.

        Args:
            overwrite: nothing else reads `residual`: the result may be written over it, which saves memory traffic, a
                third of the time of a 1 x 1 convolution from 64 to 256 channels.
            given: weight and bias in place of its own.

        Raises:
            DataError: an image is not finite. oneDNN's ReLU makes a number of what is none, which would go unnoticed.
        """
        conv = self._conv
        if conv.in_channels <= IMAGE_CHANNELS and not x.sum().isfinite():
            raise DataError("An image given to the network holds values that are not finite: give finite pixels.")
        weight, bias = given or (self._weight_for(x), conv.bias)
        if overwrite:
            overwrite = lies_channels_last(x) and lies_channels_last(residual)
        return mkldnn.convolution(conv, x, weight, bias, relu=relu, residual=residual, overwrite=overwrite)

    def _weight_for(self, x: torch.Tensor) -> torch.Tensor:
        conv, weight = self._conv, self._conv.weight
        most = MOST_CELLS_BFLOAT16 if x.dtype == torch.bfloat16 else MOST_CELLS
        if x.shape[0] * x.shape[-2] * x.shape[-1] > most:
            return weight
        now = (x.shape, tensor_version(weight))
        if now != self._for:
            if now != self._last:
                self._last = now
                return weight
            self._laid_out = mkldnn.laid_out_weight(conv, x.shape)
            self._for = now
        return self._laid_out

    def __getstate__(self) -> dict:
        return {"_conv": self._conv, "_laid_out": None, "_for": None, "_last": None}  # a layout cannot be copied


def is_cpu_inference(x: torch.Tensor) -> bool:
    """Whether `x` is on a CPU and nothing but its values is asked for: no gradients, autocast or graph."""
    return x.is_cpu and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or is_traced())


def lies_channels_last(x: torch.Tensor) -> bool:
    """Whether the values (N, C, H, W) of a cell are beside each other."""
    return x.is_contiguous(memory_format=torch.channels_last)
