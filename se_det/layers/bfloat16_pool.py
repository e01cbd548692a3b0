"""The stem's maximum pooling in bfloat16, in inference on CPUs: half the time of PyTorch's, which goes by float32.

The bits of numbers that are not negative, read as integers, are in the order of the numbers. So the maximum is that of
int16, for which processors have an instruction.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .onednn import is_cpu_inference, lies_channels_last

BAND = 2**18  # values at a time between the two passes: they stay in the cache


def max_pool_3x3(x: torch.Tensor, *, padding: int, ceil_mode: bool) -> torch.Tensor:
    """`F.max_pool2d(x, 3, 2, padding, ceil_mode=ceil_mode)` of maps (N, C, H, W) that are nowhere negative."""
    if (
        x.dtype != torch.bfloat16 or not is_cpu_inference(x) or not lies_channels_last(x)
        or (padding, ceil_mode) != (1, False) or x.shape[2] % 2 or x.shape[3] % 2
    ):  # fmt: skip
        return F.max_pool2d(x, 3, 2, padding, ceil_mode=ceil_mode)
    bits = x.permute(0, 2, 3, 1).view(torch.int16)
    count, height, width, channels = bits.shape
    result = bits.new_empty(count, height // 2, width // 2, channels)
    band = max(BAND // (width * channels), 1)
    for image, pooled in zip(bits, result):
        for first in range(0, height // 2, band):
            _pool_band(image[max(2 * first - 1, 0) : 2 * (first + band)], pooled[first : first + band])
    return result.view(torch.bfloat16).permute(0, 3, 1, 2)


def _pool_band(rows: torch.Tensor, pooled: torch.Tensor) -> None:
    """(2 H, or with the row above 2 H + 1, W, C) to (H, W / 2, C): maxima of three rows, then of three columns."""
    above = len(rows) % 2
    highest = torch.maximum(rows[above::2], rows[above + 1 :: 2])
    ends = highest if above else highest[1:]
    torch.maximum(ends, rows[1 - above : -2 : 2], out=ends)
    torch.maximum(highest[:, ::2], highest[:, 1::2], out=pooled)
    torch.maximum(pooled[:, 1:], highest[:, 1:-1:2], out=pooled[:, 1:])
