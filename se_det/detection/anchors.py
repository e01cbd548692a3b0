"""Anchors: boxes of given areas and aspect ratios, centred on every cell of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..errors import ConfigError


class AnchorGenerator(nn.Module):
    """Anchors are centred on the cell's corner plus `offset` cells (Detectron2's convention).

    Args:
        sizes: square roots of the anchors' areas in px, a list for each level (or one list for all of them).
        aspect_ratios: heights over widths, likewise.
        strides: px per cell of each level.
        rounded: corners, seen from the anchor's centre, are whole numbers, as torchvision's; Detectron2's are not.
    """

    def __init__(
        self, *, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]], strides: Sequence[int],
        offset: float = 0.0, rounded: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.strides = tuple(strides)
        self.offset = offset
        sizes = self._per_level("SIZES", sizes)
        aspect_ratios = self._per_level("ASPECT_RATIOS", aspect_ratios)
        counts = {len(s) * len(r) for s, r in zip(sizes, aspect_ratios)}
        if len(counts) != 1:
            raise ConfigError(f"MODEL.ANCHOR_GENERATOR gives levels different numbers of anchors: {sorted(counts)}.")
        self.anchors_per_cell = counts.pop()
        for level, (level_sizes, level_ratios) in enumerate(zip(sizes, aspect_ratios)):
            cells = cell_anchors(level_sizes, level_ratios)
            self.register_buffer(f"cell_anchors{level}", cells.round() if rounded else cells, persistent=False)

    def _per_level(self, key: str, values: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
        if len(values) not in (1, len(self.strides)):
            raise ConfigError(
                f"MODEL.ANCHOR_GENERATOR.{key} has {len(values)} lists for {len(self.strides)} levels: "
                "give one for each level, or one for all."
            )
        return list(values) * len(self.strides) if len(values) == 1 else values

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Anchors of each level: (H W A, 4) XYXY px for a map (N, C, H, W), by row, column, then anchor."""
        results = []
        for level, (x, stride) in enumerate(zip(maps, self.strides)):
            cell = getattr(self, f"cell_anchors{level}")
            height, width = x.shape[-2:]
            ys = (torch.arange(height, device=cell.device, dtype=cell.dtype) + self.offset) * stride
            xs = (torch.arange(width, device=cell.device, dtype=cell.dtype) + self.offset) * stride
            grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
            shifts = torch.stack([grid_x, grid_y, grid_x, grid_y], -1).view(-1, 1, 4)
            results.append((shifts + cell).view(-1, 4))
        return results


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> torch.Tensor:
    """(sizes x ratios, 4) boxes around the origin, px."""
    boxes = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes)
