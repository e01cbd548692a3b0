"""Pooling that follows the valid area of a padded batch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .valid_area import ValidArea


class Pool(nn.Module):
    """Square maximum or average pooling of maps that are nowhere negative, as they are after a ReLU.

    Args:
        kind: "max" or "avg".
        ceil: Caffe's output sizes, rounded up: a last window may reach beyond the border.
        count_padding: an average counts the zeros of the padding (Caffe's and PyTorch's way), or leaves them out
            (TensorFlow's).
    """

    def __init__(
        self, kind: str, kernel: int, *, stride: int = 1, padding: int = 0, ceil: bool = False,
        count_padding: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind = kind
        self.kernel, self.stride, self.padding, self.ceil = kernel, stride, padding, ceil
        self.count_padding = count_padding

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> tuple[torch.Tensor, ValidArea | None]:
        """(N, C, H, W) and its area to (N, C, H', W') and its area."""
        after, exact = None, area is not None and area.exact
        if area is not None:
            after = area.after(self.kernel, self.stride, self.padding, ceil_mode=self.ceil)
        if exact:
            x = area.zero_padding(x)  # zero never wins a maximum here, like the border's -infinity
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil), after
        if self.count_padding or not exact:
            return self._average(x, self.count_padding), after
        # Averages of values and of ones have the same divisor, which so becomes the number of cells of the image.
        inside = area.mask(x).to(x.dtype)
        smallest = 0.5 / self.kernel**2
        return self._average(x, True) / self._average(inside, True).clamp(min=smallest), after

    def _average(self, x: torch.Tensor, count_padding: bool) -> torch.Tensor:
        return F.avg_pool2d(
            x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil, count_include_pad=count_padding
        )

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.kernel}, stride={self.stride}, padding={self.padding}, ceil={self.ceil}"
