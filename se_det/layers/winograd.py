"""3 x 3 convolutions with a quarter of the products, for CPUs (Lavin, Gray, arXiv 1509.09308: F(4x4, 3x3)).

A tile of 4 x 4 outputs needs 6 x 6 inputs. Transformed by small matrices, its 16 * 9 products per pair of channels
become 36: a quarter, in 36 matrix products over all tiles.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..internals import mkldnn
from ..internals.tensor_version import tensor_version
from .conv import Conv2d
from .onednn import PackedConv2d, is_cpu_inference

# The paper's B^T, G and A^T, which transform inputs, weights and outputs (section 4.3).
INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]]  # fmt: skip
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
          [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
OUT, IN = 4, 6  # sides of a tile

# Below these it was not faster than the direct convolution (2-core AVX-512 CPUs, PyTorch 2.14 and 2.15).
LEAST_CHANNELS, LEAST_CELLS = 128, 512
LEAST_CELLS_PER_CHANNEL = 2  # below, the transformed weight is large and saves little: 38 MB and 12 ms of 512 channels
TILES = 128  # about so many at a time: what is between the products stays in the cache, and weights are read seldom


def supports_winograd(conv: nn.Module) -> bool:
    """Whether `conv` is of the kind that can be computed so, and of enough channels to be faster."""
    return (
        type(conv) is Conv2d and conv.norm is None and conv.kernel_size == (3, 3) and conv.stride == (1, 1)
        and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
        and conv.weight.dtype == torch.float32 and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
    )  # fmt: skip


class WinogradConv2d(PackedConv2d):
    """How a convolution that `supports_winograd` runs on a CPU in inference: on large maps to within 2e-5 of its
    largest value, on others as oneDNN does it."""

    def __init__(self, conv: Conv2d) -> None:
        super().__init__(conv)
        self._of_input, self._of_output = _of_both_sides(INPUT), _of_both_sides(OUTPUT)
        self._transformed: torch.Tensor | None = None
        self._version: Hashable = None  # of the weight that was transformed

    def supports(self, x: torch.Tensor) -> bool:
        if self._is_large(x):
            return is_cpu_inference(x)
        return mkldnn.is_available() and super().supports(x)

    def _is_large(self, x: torch.Tensor) -> bool:
        """Of what `supports` takes, whether Winograd's method is the faster."""
        cells = max(LEAST_CELLS, LEAST_CELLS_PER_CHANNEL * self._conv.in_channels)
        return x.shape[-2] * x.shape[-1] >= cells and x.dtype == self._conv.weight.dtype == torch.float32

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, residual: torch.Tensor | None = None,
        given: tuple[torch.Tensor, torch.Tensor | None] | None = None, overwrite: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """As `PackedConv2d`'s; the result lies channels last."""
        if given is not None or not self._is_large(x):
            return super().__call__(x, relu=relu, residual=residual, given=given, overwrite=overwrite)
        result = self._convolve(x.permute(0, 2, 3, 1), relu=relu and residual is None).permute(0, 3, 1, 2)
        if residual is not None:
            result += residual
            if relu:
                F.relu_(result)
        return result

    def _convolve(self, x: torch.Tensor, *, relu: bool) -> torch.Tensor:
        """(N, H, W, C_in) to (N, H, W, C_out)."""
        weight, bias = self._transformed_weight(), self._conv.bias
        count, height, width, channels = x.shape
        out_channels = weight.shape[-1]
        down, across = -(-height // OUT), -(-width // OUT)
        padded = _padded(x, down * OUT + 2, across * OUT + 2)
        step, row = padded.stride()[:2]
        result = x.new_empty(count, down * OUT, across * OUT, out_channels)
        band = -(-TILES // across)  # rows of tiles at a time
        most = IN * IN * min(band, down) * across * max(channels, out_channels)
        buffers = x.new_empty(most), x.new_empty(most)
        for image in range(count):
            for first in range(0, down, band):
                tiles = min(band, down - first)
                # Windows of six rows and columns that overlap by two; then [place in the window, tile, channel].
                windows = padded.as_strided(
                    (IN, IN, tiles, across, channels), (row, channels, OUT * row, OUT * channels, 1),
                    image * step + first * OUT * row,
                )  # fmt: skip
                shape = IN * IN, tiles * across
                inputs = _part(buffers[0], windows.shape).copy_(windows).view(IN * IN, -1)
                inputs = torch.mm(self._of_input, inputs, out=_part(buffers[1], inputs.shape))
                products = _part(buffers[0], (*shape, out_channels))
                torch.bmm(inputs.view(*shape, channels), weight, out=products)
                outputs = _part(buffers[1], (OUT * OUT, shape[1] * out_channels))
                torch.mm(self._of_output, products.view(IN * IN, -1), out=outputs)
                outputs = outputs.view(OUT, OUT, tiles, across, out_channels).permute(2, 0, 3, 1, 4)
                place = result[image, first * OUT : (first + tiles) * OUT].view(outputs.shape)
                if bias is None:
                    place.copy_(outputs)
                else:
                    torch.add(outputs, bias, out=place)
                if relu:
                    F.relu_(place)
        return result[:, :height, :width].contiguous()

    def _transformed_weight(self) -> torch.Tensor:
        """(36, C_in, C_out)."""
        weight = self._conv.weight
        version = tensor_version(weight)
        if self._version != version:
            left = torch.tensor(WEIGHT)
            self._transformed = torch.einsum("ap,bq,oipq->abio", left, left, weight.detach()).flatten(0, 1).contiguous()
            self._version = version
        return self._transformed

    def __getstate__(self) -> dict:
        return self.__dict__ | super().__getstate__() | {"_transformed": None, "_version": None}


def _of_both_sides(matrix: Sequence[Sequence[float]]) -> torch.Tensor:
    """M x M^T of a tile x as one matrix, for the tile's values in a column."""
    matrix = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(matrix, matrix)


def _padded(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, H, W, C) within zeros, one before and the others after: (N, height, width, C). `F.pad` writes all twice."""
    rows, columns = x.shape[1] + 1, x.shape[2] + 1
    padded = x.new_empty(len(x), height, width, x.shape[3])
    for border in (padded[:, :1], padded[:, rows:], padded[:, :, :1], padded[:, :, columns:]):
        border.zero_()
    padded[:, 1:rows, 1:columns] = x
    return padded


def _part(buffer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The beginning of `buffer` as a tensor of this shape."""
    return buffer[: torch.Size(shape).numel()].view(shape)
