"""Feature pyramid network (Lin et al., arXiv 1612.03144) with Detectron2's parameter names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..layers.conv import Conv2d
from ..layers.tracing import is_traced
from ..layers.valid_area import ValidArea
from .trunk import image_area


class FPN(nn.Module):
    """Lateral 1 x 1 convolutions, nearest upsampling and sum, 3 x 3 output convolutions, and P6 from P5.

    Args:
        bottom_up: a trunk with `features`, `channels`, `strides` and `padding`.
        in_features: the trunk's maps, finest first, each of twice the stride of the one before.
        out_channels: channels of every output.
        norm: norm of lateral and output convolutions, "" for none.
        fuse: "sum", or "avg" which halves the sum.
    """

    def __init__(
        self, bottom_up: nn.Module, *, in_features: Sequence[str], out_channels: int = 256, norm: str = "",
        fuse: str = "sum",
    ) -> None:  # fmt: skip
        super().__init__()
        if fuse not in ("sum", "avg"):
            raise ConfigError(f"MODEL.FPN.FUSE_TYPE '{fuse}' is unknown: use sum or avg.")
        unknown = [name for name in in_features if name not in bottom_up.out_features]
        if unknown or not in_features:
            raise ConfigError(
                f"MODEL.FPN.IN_FEATURES {list(in_features)} must name maps that the backbone returns: "
                f"{list(bottom_up.out_features)}."
            )
        strides = [bottom_up.strides[name] for name in in_features]
        if any(b != 2 * a for a, b in pairwise(strides)):
            raise ConfigError(
                f"MODEL.FPN.IN_FEATURES {list(in_features)} have strides {strides}; each must be twice the one before."
            )
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.padding = bottom_up.padding
        self.fuse = fuse
        self.levels = tuple(int(math.log2(stride)) for stride in strides)
        for level, name in zip(self.levels, in_features):
            self.add_module(f"fpn_lateral{level}", Conv2d(bottom_up.channels[name], out_channels, 1, norm=norm))
            self.add_module(f"fpn_output{level}", Conv2d(out_channels, out_channels, 3, padding=1, norm=norm))
            for convolution in (self._lateral(level), self._output(level)):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)
        last = self.levels[-1] + 1
        self.strides = {f"p{level}": 2**level for level in (*self.levels, last)}
        self.channels = dict.fromkeys(self.strides, out_channels)
        self.size_divisibility = strides[-1]

    def _lateral(self, level: int) -> Conv2d:
        return getattr(self, f"fpn_lateral{level}")

    def _output(self, level: int) -> Conv2d:
        return getattr(self, f"fpn_output{level}")

    def features(
        self, x: torch.Tensor, area: ValidArea | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, ValidArea | None]]:
        """The pyramid's maps, finest first, and the area of each."""
        maps, areas = self.bottom_up.features(x, area)
        results, result_areas = {}, {}
        above, above_area = None, None
        for level, name in reversed(list(zip(self.levels, self.in_features))):
            here, here_area = self._lateral(level)(maps[name], areas[name]), areas[name]
            if above is not None:
                if above_area is not None and above_area.exact:
                    above = above_area.zero_padding(above)
                height, width = here.shape[-2:]
                if is_traced():  # the same cells, without a cut whose need would be settled for one size
                    above = F.interpolate(above, size=(height, width), mode="nearest")
                else:
                    # Equal to doubling; cut where the finer map is not twice the coarser one (inputs not padded to 32).
                    above = F.interpolate(above, scale_factor=2.0, mode="nearest")[..., :height, :width]
                here = here.add_(above) if self.fuse == "sum" else here.add_(above).div_(2)
            above, above_area = here, here_area
            results[f"p{level}"] = self._output(level)(here, here_area)
            result_areas[f"p{level}"] = here_area
        results = dict(reversed(results.items()))
        result_areas = dict(reversed(result_areas.items()))
        last = self.levels[-1]
        results[f"p{last + 1}"] = F.max_pool2d(results[f"p{last}"], 1, 2)
        area = result_areas[f"p{last}"]
        result_areas[f"p{last + 1}"] = None if area is None else area.after(1, 2, 0)
        return results, result_areas

    def forward(self, x: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> dict[str, torch.Tensor]:
        """Pyramid maps by name ("p2" .. "p6"), each (N, out_channels, H / stride, W / stride).

        Args:
            x: (N, 3, H, W), normalised.
            sizes: (height, width) in pixels of each image; needed unless the padding is "keep".
        """
        return self.features(x, image_area(self.padding, sizes))[0]
