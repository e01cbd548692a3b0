"""Which part of a padded batch of maps belongs to each image.

Detectors pad the images of a batch to a common size. A `ValidArea` says how large each image really is on the map
at hand, and follows it through every convolution and pooling by that operation's own output formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .tracing import is_traced


def output_size(
    size: int | torch.Tensor, kernel: int, stride: int, padding: int, dilation: int = 1, *, ceil_mode: bool = False
) -> int | torch.Tensor:
    """Length of one side, or of several, after a convolution or pooling, as PyTorch computes it."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    result = -(-span // stride) + 1
    # A window that would start in the right padding is dropped.
    return result - 1 * ((result - 1) * stride >= size + padding)


@dataclass(frozen=True)
class ValidArea:
    """The height and width in cells of each image's own area, at the top left of its map.

    Args:
        sizes: (height, width) of each of the N images, on this map; or, in a graph that is exported for images of any
            size, int64 (N, 2).
        exact: also zero what lies outside before every operation that mixes neighbouring cells.
    """

    sizes: tuple[tuple[int, int], ...] | torch.Tensor
    exact: bool = False

    @classmethod
    def from_sizes(cls, sizes: Sequence[Sequence[int]], *, exact: bool = False) -> ValidArea:
        """From any sequence of (height, width)."""
        return cls(tuple((int(h), int(w)) for h, w in sizes), exact)

    def after(self, kernel: int, stride: int, padding: int, dilation: int = 1, *, ceil_mode: bool = False) -> ValidArea:
        """The area on the output of a convolution or pooling."""
        if stride == 1 and 2 * padding == dilation * (kernel - 1):
            return self

        def side(size: int | torch.Tensor) -> int | torch.Tensor:
            return output_size(size, kernel, stride, padding, dilation, ceil_mode=ceil_mode)

        if isinstance(self.sizes, torch.Tensor):
            return ValidArea(side(self.sizes), self.exact)
        return ValidArea(tuple((side(h), side(w)) for h, w in self.sizes), self.exact)

    def doubled(self) -> ValidArea:
        """The area on a map of twice the cells a side."""
        if isinstance(self.sizes, torch.Tensor):
            return ValidArea(2 * self.sizes, self.exact)
        return ValidArea(tuple((2 * h, 2 * w) for h, w in self.sizes), self.exact)

    def covers(self, x: torch.Tensor) -> bool:
        """Whether every image covers the whole of its map `x` (N, C, H, W), so that nothing has to be left out; no
        where that is known only when a graph is run."""
        if isinstance(self.sizes, torch.Tensor):
            return False
        return all(size == tuple(x.shape[-2:]) for size in self.sizes)

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        """Boolean (N, 1, H, W): the cells of `x` that belong to an image."""
        height, width = x.shape[-2:]
        sizes = torch.as_tensor(self.sizes, device=x.device)
        rows = torch.arange(height, device=x.device) < sizes[:, :1]
        columns = torch.arange(width, device=x.device) < sizes[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def zero_padding(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (N, C, H, W) with zeros outside each image."""
        if self.covers(x):
            return x
        return torch.where(self.mask(x), x, x.new_zeros(()))

    def replicate_edge(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (N, C, H, W) with each image's last row and column repeated outwards: what clamping at the border of
        an unpadded map would read."""
        if self.covers(x):
            return x
        height, width = x.shape[-2:]
        sizes = torch.as_tensor(self.sizes, device=x.device)
        rows = torch.arange(height, device=x.device).minimum(sizes[:, :1] - 1)
        columns = torch.arange(width, device=x.device).minimum(sizes[:, 1:] - 1)
        image = torch.arange(x.shape[0], device=x.device)[:, None, None]
        return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def bin_weights(size: torch.Tensor | int, bins: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """(..., bins, length): row j averages cells floor(j size / bins) up to ceil((j + 1) size / bins), as adaptive
    average pooling does on a map of `size` cells.

    Args:
        size: cells; of several images (N, 1, 1).
    """
    index = torch.arange(bins, device=like.device)[:, None]
    cell = torch.arange(length, device=like.device)
    start = torch.div(index * size, bins, rounding_mode="floor")
    end = torch.div((index + 1) * size + bins - 1, bins, rounding_mode="floor")
    return ((cell >= start) & (cell < end)).to(like.dtype) / (end - start)


def average_grid(x: torch.Tensor, bins: int, area: ValidArea | None = None) -> torch.Tensor:
    """Average `x` (N, C, H, W) over a `bins` x `bins` grid of each image's own area: (N, C, bins, bins)."""
    if area is None or area.covers(x):
        summed = (x.requires_grad and x.dtype in (torch.float32, torch.float64)) or (
            x.dtype == torch.bfloat16 and x.device.type == "cpu"
        )
        if bins == 1 and summed and not is_traced():
            # A sum's gradient is a view, added to x's other gradient in one pass; a mean's is a map of its own. And in
            # bfloat16 a mean makes a float32 copy of the whole map on a CPU, where a sum does without.
            return x.sum((-2, -1), keepdim=True) / (x.shape[-2] * x.shape[-1])
        if bins == 1 or not is_traced():
            return torch.nn.functional.adaptive_avg_pool2d(x, bins)
        # ONNX has no adaptive pooling, and its stand-in fails where the grid does not divide (pytorch#64806).
        rows, columns = (bin_weights(side, bins, side, x) for side in x.shape[-2:])
        maps = x.flatten(0, 1)  # of three dimensions, as PyTorch 2.6 does not export `@` of more with unknown sides
        count = maps.shape[0]
        cells = torch.bmm(rows.expand(count, -1, -1), torch.bmm(maps, columns.mT.expand(count, -1, -1)))
        return cells.unflatten(0, x.shape[:2])
    x = area.zero_padding(x)  # an infinity outside would survive a weight of zero
    sizes = torch.as_tensor(area.sizes, device=x.device)[:, :, None, None]
    rows = bin_weights(sizes[:, 0], bins, x.shape[-2], x)[:, None]
    columns = bin_weights(sizes[:, 1], bins, x.shape[-1], x)[:, None]
    return rows @ (x @ columns.mT)
