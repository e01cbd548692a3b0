"""The head of one-stage detectors: two towers of convolutions that all levels of a pyramid share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.norms import GroupNorm, get_norm
from ..layers.valid_area import ValidArea


class LevelNorm(nn.ModuleList):
    """A batch norm with statistics of their own for each level, and one affine for all (Wu and Johnson,
    arXiv 2105.07576, section 5.2), under the parameter names of Detectron2's CycleBatchNormList."""

    def __init__(self, name: str, channels: int, levels: int) -> None:
        kind = nn.SyncBatchNorm if name == "SyncBN" else nn.BatchNorm2d
        super().__init__([kind(channels, affine=False) for _ in range(levels)])
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """(N, C, H, W) of a level to the same shape."""
        return self[level](x) * self.weight[:, None, None] + self.bias[:, None, None]


class DenseHead(nn.Module):
    """Class scores and deltas of every anchor of every cell (Lin et al., arXiv 1708.02002), with Detectron2's names.

    Args:
        in_channels: of every map.
        num_classes: K.
        anchors_per_cell: A.
        levels: how many maps there are.
        num_convs: 3 x 3 convolutions of each tower.
        norm: after each of them: "", GN, FrozenBN, or BN or SyncBN, which have statistics for each level.
        prior: the probability of each class at the start.
        centreness: also say how far from its object's middle a cell is (FCOS, arXiv 1904.01355, equation 3).
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, anchors_per_cell: int = 1, levels: int, num_convs: int = 4,
        norm: str = "", prior: float = 0.01, centreness: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_classes = num_classes
        self.cls_subnet = self._tower(in_channels, num_convs, norm, levels)
        self.bbox_subnet = self._tower(in_channels, num_convs, norm, levels)
        self.cls_score = Conv2d(in_channels, anchors_per_cell * num_classes, 3, padding=1)
        self.bbox_pred = Conv2d(in_channels, anchors_per_cell * 4, 3, padding=1)
        self.ctrness = Conv2d(in_channels, 1, 3, padding=1) if centreness else None
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))

    @staticmethod
    def _tower(channels: int, count: int, norm: str, levels: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(count):
            layers.append(Conv2d(channels, channels, 3, padding=1))
            if norm:
                per_level = norm in ("BN", "SyncBN")
                layers.append(LevelNorm(norm, channels, levels) if per_level else get_norm(norm, channels))
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)

    def forward(
        self, maps: Sequence[torch.Tensor], areas: Sequence[ValidArea | None]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Of each level: class logits (N, H W A, K), deltas (N, H W A, 4), and with `centreness` its logits
        (N, H W), else an empty list."""
        logits, deltas, centreness = [], [], []
        for level, (x, area) in enumerate(zip(maps, areas, strict=True)):
            of_class = _through(self.cls_subnet, x, area, level)
            of_box = _through(self.bbox_subnet, x, area, level)
            logits.append(_rows(self.cls_score(of_class, area), self.num_classes))
            deltas.append(_rows(self.bbox_pred(of_box, area), 4))
            if self.ctrness is not None:
                centreness.append(_rows(self.ctrness(of_box, area), 1)[..., 0])
        return logits, deltas, centreness


def _through(tower: nn.Sequential, x: torch.Tensor, area: ValidArea | None, level: int) -> torch.Tensor:
    layers = list(tower)
    for layer, following in zip(layers, [*layers[1:], None]):
        if isinstance(layer, Conv2d):
            x = layer.forward_relu(x, area) if isinstance(following, nn.ReLU) else layer(x, area)
        elif isinstance(layer, LevelNorm):
            x = F.relu_(layer(x, level))
        elif not isinstance(layer, nn.ReLU):
            inside = area if area is not None and area.exact and isinstance(layer, GroupNorm) else None
            x = F.relu_(layer(x, inside) if inside is not None else layer(x))
    return x


def _rows(x: torch.Tensor, values: int) -> torch.Tensor:
    """(N, A values, H, W) to (N, H W A, values)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
