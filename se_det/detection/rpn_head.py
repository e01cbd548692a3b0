"""The head of a region proposal network (Ren et al., arXiv 1506.01497), shared by all levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.valid_area import ValidArea


class RPNHead(nn.Module):
    """A 3 x 3 convolution shared by all levels, then objectness and deltas for every anchor of a cell.

    Args:
        in_channels: channels of every map.
        anchors_per_cell: A.
        conv_dims: channels of the hidden convolutions; -1 repeats `in_channels`.
    """

    def __init__(self, *, in_channels: int, anchors_per_cell: int, conv_dims: Sequence[int] = (-1,)) -> None:
        super().__init__()
        hidden = [in_channels if dim == -1 else dim for dim in conv_dims]
        convs = [Conv2d(a, b, 3, padding=1) for a, b in zip([in_channels, *hidden], hidden)]
        # Detectron2 names a single convolution `conv` and several `conv.conv0`, `conv.conv1`, ...
        self.conv = convs[0] if len(convs) == 1 else nn.ModuleDict({f"conv{i}": c for i, c in enumerate(convs)})
        self.objectness_logits = nn.Conv2d(hidden[-1], anchors_per_cell, 1)
        self.anchor_deltas = nn.Conv2d(hidden[-1], anchors_per_cell * 4, 1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(
        self, maps: Sequence[torch.Tensor], areas: Sequence[ValidArea | None]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Objectness logits (N, H W A) and deltas (N, H W A, 4) of each level."""
        convs = [self.conv] if isinstance(self.conv, Conv2d) else self.conv.values()
        logits, deltas = [], []
        for x, area in zip(maps, areas):
            for conv in convs:
                x = conv.forward_relu(x, area)
            logits.append(self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.anchor_deltas(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return logits, deltas

    def prefers_sparse(self, anchors: int, maps: Sequence[torch.Tensor]) -> bool:
        """Whether `forward_sparse` is the cheaper way to the gradients of that many anchors of an image: their
        surroundings are fewer cells than the maps have."""
        return isinstance(self.conv, Conv2d) and 9 * anchors < sum(x.shape[-2] * x.shape[-1] for x in maps)

    def forward_sparse(
        self, maps: Sequence[torch.Tensor], areas: Sequence[ValidArea | None], at: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` predicts for some anchors, from the 3 x 3 cells around each, for a head of one convolution.

        The losses look at a few hundred anchors of a few hundred thousand. Through `forward` their gradients would be
        two convolutions over maps of zeros, and every hidden map would be kept for them.

        Args:
            at: (N, k) positions among the anchors of all levels one after another.

        Returns:
            logits (N, k) and deltas (N, k, 4).
        """
        per_cell = self.objectness_logits.out_channels
        cell, anchor = at // per_cell, at % per_cell
        around = _around(maps, areas, cell)
        hidden = F.relu_(F.linear(around, self.conv.weight.permute(0, 2, 3, 1).flatten(1), self.conv.bias))
        outputs = (self.objectness_logits, self.anchor_deltas)
        weight, bias = (torch.cat([getattr(layer, name) for layer in outputs]) for name in ("weight", "bias"))
        logits, deltas = F.linear(hidden, weight.flatten(1), bias).split([per_cell, 4 * per_cell], 2)
        deltas = deltas.unflatten(2, (per_cell, 4)).gather(2, anchor[..., None, None].expand(-1, -1, 1, 4))
        return logits.gather(2, anchor[..., None])[..., 0], deltas[:, :, 0]


def _around(
    maps: Sequence[torch.Tensor], areas: Sequence[ValidArea | None], cells: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """The 3 x 3 cells around each of `cells` (N, k), numbered through all levels: (N, k, 9 C), row by row, with the
    zeros that a convolution reads beyond the border. Of every level as many are read as of all: which are on it is
    known to the device alone."""
    image = torch.arange(len(cells), device=cells.device)[:, None, None, None]
    step = torch.arange(-1, 2, device=cells.device)
    total = 0
    for x, area in zip(maps, areas):
        height, width = x.shape[-2:]
        here = (cells >= 0) & (cells < height * width)
        own = cells % (height * width)  # elsewhere some cell: what is read there is dropped
        row = (own // width)[..., None, None] + step[:, None]
        column = (own % width)[..., None, None] + step
        inside = here[..., None, None] & (row >= 0) & (column >= 0)
        if area is not None and area.exact:
            sizes = torch.tensor(area.sizes, device=cells.device)[:, :, None, None, None]
            inside &= (row < sizes[:, 0]) & (column < sizes[:, 1])
        else:
            inside &= (row < height) & (column < width)
        around = x.permute(0, 2, 3, 1)[image, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        total = total + torch.where(inside[..., None], around, 0.0)
        cells = cells - height * width
    return total.flatten(2)
