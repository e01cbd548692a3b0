"""Feature pyramid network (Lin et al., arXiv 1612.03144) with Detectron2's parameter names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..layers.conv import Conv2d
from ..layers.tracing import is_traced
from ..layers.valid_area import ValidArea
from .trunk import check_choice, image_area


class LastLevelMaxPool(nn.Module):
    """P6: every other cell of P5 (FPN, arXiv 1612.03144, section 4.1)."""

    num_levels = 1
    in_feature = "p5"

    def forward(
        self, x: torch.Tensor, area: ValidArea | None
    ) -> tuple[list[torch.Tensor], list[ValidArea | None]]:  # fmt: skip
        """P5 (N, C, H, W) and its area to the maps above and their areas."""
        return [F.max_pool2d(x, 1, 2)], [None if area is None else area.after(1, 2, 0)]


class LastLevelP6P7(nn.Module):
    """P6 and P7 by 3 x 3 convolutions of stride 2 (RetinaNet, arXiv 1708.02002, section 4).

    Args:
        in_channels: of the map that P6 is made of.
        in_feature: its name: "res5", or "p5" as in FCOS (arXiv 2006.09214, section 2.2).
        relu: whether P7 is made of P6 after a ReLU.
    """

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, *, in_feature: str = "res5", relu: bool = True) -> None:
        super().__init__()
        self.in_feature = in_feature
        self.relu = relu
        self.p6 = Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for convolution in (self.p6, self.p7):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)

    def forward(
        self, x: torch.Tensor, area: ValidArea | None
    ) -> tuple[list[torch.Tensor], list[ValidArea | None]]:  # fmt: skip
        """The map (N, C_in, H, W) and its area to P6 and P7 and their areas."""
        p6, of_p6 = self.p6(x, area), self.p6.area_after(area)
        return [p6, self.p7(F.relu(p6) if self.relu else p6, of_p6)], [of_p6, self.p7.area_after(of_p6)]


# MODEL.FPN.TOP_BLOCK: what each is made of.
TOP_BLOCKS = {"max_pool": "", "p6p7_res5": "res5", "p6p7_res5_linear": "res5", "p6p7_p5": "p5"}


class FPN(nn.Module):
    """Lateral 1 x 1 convolutions, nearest upsampling and sum, 3 x 3 output convolutions, and the maps above P5.

    Args:
        bottom_up: a trunk with `features`, `channels`, `strides` and `padding`.
        in_features: the trunk's maps, finest first, each of twice the stride of the one before.
        out_channels: channels of every output.
        norm: norm of lateral and output convolutions, "" for none.
        fuse: "sum", or "avg" which halves the sum.
        top_block: one of `TOP_BLOCKS`.
        make_gate: called with the channels and the stage of a level's stride ("res2" for 4); what it gives recalibrates
            the level's output.
    """

    def __init__(
        self, bottom_up: nn.Module, *, in_features: Sequence[str], out_channels: int = 256, norm: str = "",
        fuse: str = "sum", top_block: str = "max_pool", make_gate: Callable[[int, str], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_choice("MODEL.FPN.TOP_BLOCK", top_block, TOP_BLOCKS)
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
        self.gated = make_gate is not None
        for level in self.levels if make_gate is not None else ():
            self.add_module(f"fpn_gate{level}", make_gate(out_channels, f"res{min(level, 5)}"))
        self.top_block = self._make_top_block(
            TOP_BLOCKS[top_block], out_channels, relu=not top_block.endswith("_linear")
        )
        above = [self.levels[-1] + number for number in range(1, self.top_block.num_levels + 1)]
        self.strides = {f"p{level}": 2**level for level in (*self.levels, *above)}
        self.channels = dict.fromkeys(self.strides, out_channels)
        self.size_divisibility = strides[-1]

    def _make_top_block(self, source: str, out_channels: int, *, relu: bool) -> nn.Module:
        if not source:
            block: nn.Module = LastLevelMaxPool()
            block.in_feature = f"p{self.levels[-1]}"
            return block
        if source.startswith("p"):
            source, channels = f"p{self.levels[-1]}", out_channels
        elif source in self.bottom_up.out_features:
            channels = self.bottom_up.channels[source]
        else:
            raise ConfigError(
                f"MODEL.RESNETS.OUT_FEATURES {list(self.bottom_up.out_features)} lacks {source}, which P6 and P7 are "
                "made from."
            )
        return LastLevelP6P7(channels, out_channels, in_feature=source, relu=relu)

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
            lateral, here, here_area = self._lateral(level), maps[name], areas[name]
            if above is None:
                here = lateral(here, here_area)
            else:
                if above_area is not None and above_area.exact:
                    above = above_area.zero_padding(above)
                height, width = here.shape[-2:]
                if is_traced():  # the same cells, without a cut whose need would be settled for one size
                    above = F.interpolate(above, size=(height, width), mode="nearest")
                else:
                    # Equal to doubling; cut where the finer map is not twice the coarser one (inputs not padded to 32).
                    above = F.interpolate(above, scale_factor=2.0, mode="nearest")[..., :height, :width]
                here = lateral.forward_add(here, here_area, residual=above)
                if self.fuse == "avg":
                    here = here.div_(2)
            above, above_area = here, here_area
            results[f"p{level}"] = self._output(level)(here, here_area)
            if self.gated:
                results[f"p{level}"] = getattr(self, f"fpn_gate{level}")(results[f"p{level}"], here_area)
            result_areas[f"p{level}"] = here_area
        results = dict(reversed(results.items()))
        result_areas = dict(reversed(result_areas.items()))
        source = self.top_block.in_feature
        source_map, source_area = (results[source], result_areas[source]) if source in results else (
            maps[source], areas[source]
        )  # fmt: skip
        for number, (x, area) in enumerate(zip(*self.top_block(source_map, source_area)), self.levels[-1] + 1):
            results[f"p{number}"], result_areas[f"p{number}"] = x, area
        return results, result_areas

    def forward(self, x: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> dict[str, torch.Tensor]:
        """Pyramid maps by name ("p2" .. "p6"), each (N, out_channels, H / stride, W / stride).

        Args:
            x: (N, 3, H, W), normalised.
            sizes: (height, width) in pixels of each image; needed unless the padding is "keep".
        """
        return self.features(x, image_area(self.padding, sizes))[0]
