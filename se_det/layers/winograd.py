"""3 x 3 convolutions with a quarter of the products, for CPUs (Lavin, Gray, arXiv 1509.09308: F(4x4, 3x3)).

A tile of 4 x 4 outputs needs 6 x 6 inputs. Transformed by small matrices, its 16 * 9 products per pair of channels
become 36: a quarter, in 36 matrix products over all tiles.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..internals.tensor_version import tensor_version
from .conv import Conv2d
from .tracing import is_traced
from .valid_area import ValidArea

# The paper's B^T, G and A^T, which transform inputs, weights and outputs (section 4.3).
INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]]  # fmt: skip
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
          [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
OUT, IN = 4, 6  # sides of a tile

# Below these it was not faster than the direct convolution (2-core AVX-512 CPU, PyTorch 2.15).
LEAST_CHANNELS, LEAST_CELLS = 128, 800
BAND = 4  # rows of tiles at a time, so that what is between the products stays in the cache


def supports_winograd(conv: torch.nn.Module) -> bool:
    """Whether `conv` is of the kind that can be computed so, and of enough channels to be faster."""
    return (
        isinstance(conv, Conv2d) and conv.norm is None and conv.kernel_size == (3, 3) and conv.stride == (1, 1)
        and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
        and conv.weight.dtype == torch.float32 and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
    )  # fmt: skip


class WinogradConv2d(Conv2d):
    """A convolution that `supports_winograd`, with its weights; on large maps within 2e-5 of its largest value."""

    def __init__(self, conv: Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        self.weight, self.bias = conv.weight, conv.bias
        self.register_buffer("transformed", None, persistent=False)
        self._transform()
        for name, values in (("of_input", INPUT), ("of_output", OUTPUT)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def _transform(self) -> None:
        left = torch.tensor(WEIGHT, device=self.weight.device)
        transformed = torch.einsum("ap,bq,oipq->abio", left, left, self.weight.detach()).flatten(0, 1)
        self.transformed, self._version = transformed.contiguous(), tensor_version(self.weight)

    def convolve(self, x: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W), both channels last."""
        if x.shape[-2] * x.shape[-1] < LEAST_CELLS or torch.is_grad_enabled() or is_traced():
            return super().convolve(x, area)
        if self._version != tensor_version(self.weight):
            self._transform()
        x = self._own(x, area).permute(0, 2, 3, 1)
        count, height, width, channels = x.shape
        down, across = -(-height // OUT), -(-width // OUT)
        padded = F.pad(x, (0, 0, 1, across * OUT + 1 - width, 1, down * OUT + 1 - height)).contiguous()
        row = padded.stride(1)
        bias = x.new_zeros(()) if self.bias is None else self.bias
        result = x.new_empty(count, height, width, self.out_channels)
        for image in range(count):
            for first in range(0, down, BAND):
                tiles = min(BAND, down - first)
                # Windows of six rows that overlap by two, then of six columns: views, so nothing is copied.
                start = image * padded.stride(0) + first * OUT * row
                rows = self.of_input @ padded.as_strided((tiles, IN, row), (OUT * row, row, 1), start)
                windows = rows.as_strided((tiles * IN, across, IN, channels), (row, OUT * channels, channels, 1))
                inputs = (self.of_input @ windows).view(tiles, IN, across, IN, channels)
                inputs = inputs.permute(1, 3, 0, 2, 4).reshape(IN * IN, tiles * across, channels)
                products = torch.bmm(inputs, self.transformed)
                outputs = self.of_output @ products.view(IN, IN, -1)
                outputs = (self.of_output @ outputs.view(IN, -1)).view(OUT, OUT, tiles, across, -1)
                outputs = outputs.permute(2, 0, 3, 1, 4).reshape(tiles * OUT, across * OUT, -1)
                last = min((first + tiles) * OUT, height)
                torch.add(
                    outputs[: last - first * OUT, :width], bias, out=result[image, first * OUT : last]
                )  # fmt: skip
        return result.permute(0, 3, 1, 2)
