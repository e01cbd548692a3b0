"""RoIAlign over a pyramid: each box is read from the level that suits its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .boxes import area
from .roi_align import has_fast_path, pyramid_roi_align, roi_align

# A box of this many px a side belongs to this level (FPN, arXiv 1612.03144, equation 1).
CANONICAL_SIZE = 224
CANONICAL_LEVEL = 4
# Detectron2's names: whether RoIAlign is the aligned one.
POOLER_TYPES = {"ROIAlignV2": True, "ROIAlign": False}


class Levels(NamedTuple):
    """Which map each of some boxes is read from.

    Attributes:
        of_box: (n,) int64 from 0, on the boxes' device.
        counts: how many boxes each map has: the host has to know.
    """

    of_box: torch.Tensor
    counts: list[int]


class ROIPooler(nn.Module):
    """RoIAlign.

    Args:
        output_size: cells a side of the result.
        strides: px per cell of each level, finest first.
        sampling_ratio: samples per bin and side; 0 chooses by the box's size.
        aligned: see `roi_align`; Detectron2's ROIAlignV2, and without ROIAlign.
    """

    def __init__(
        self, *, output_size: int, strides: Sequence[int], sampling_ratio: int = 0, aligned: bool = True
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.min_level = int(math.log2(strides[0]))
        self.max_level = int(math.log2(strides[-1]))

    def levels(self, boxes: torch.Tensor) -> torch.Tensor:
        """Which of the maps each box (n, 4) is read from: (n,) int64 from 0."""
        size = torch.sqrt(area(boxes))
        level = torch.floor(CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE + 1e-8))
        return level.clamp(self.min_level, self.max_level).long() - self.min_level

    def asks_device(self, maps: Sequence[torch.Tensor]) -> bool:
        """Whether boxes on these maps are counted on a device, which the host then waits for."""
        return len(self.strides) > 1 and not has_fast_path(maps[0])

    def forward(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], known: Levels | None = None
    ) -> torch.Tensor:
        """Maps (N, C, H, W) of each level and boxes (n_i, 4) of each image to (sum n_i, C, size, size).

        Args:
            known: of all boxes one after another, where they have been counted.
        """
        image = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(list(boxes))], 1).to(maps[0].dtype)
        if len(self.strides) == 1 or len(rois) == 0:
            return self._pool(maps[0], rois, self.strides[0])
        if known is None:
            level = self.levels(rois[:, 1:].float() if rois.dtype != torch.float64 else rois[:, 1:])
        else:
            level = known.of_box
        if has_fast_path(maps[0]):
            scales = [1.0 / stride for stride in self.strides]
            return pyramid_roi_align(
                maps, rois, level, self.output_size, scales, self.sampling_ratio, aligned=self.aligned
            )
        # Sorted by level, so that the device is asked once how many boxes each level has.
        order = torch.argsort(level, stable=True)
        if known is None:
            counts = (level[:, None] == torch.arange(len(maps), device=level.device)).sum(0).tolist()
        else:
            counts = known.counts
        pieces = [
            self._pool(x, part, stride)
            for x, part, stride in zip(maps, rois[order].split(counts), self.strides)
            if len(part)
        ]
        return torch.cat(pieces).index_select(0, order.argsort())

    def _pool(self, x: torch.Tensor, rois: torch.Tensor, stride: int) -> torch.Tensor:
        return roi_align(x, rois, self.output_size, 1.0 / stride, self.sampling_ratio, aligned=self.aligned)
