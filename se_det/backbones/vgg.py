"""VGG-16 with batch norm (Simonyan and Zisserman, arXiv 1409.1556), as the SE paper trains it, and its classifier."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.pool import Pool
from .blocks import Stage
from .conv_units import GatedConv
from .trunk import Trunk

# Channels of each stage's convolutions; "pool" halves the map (configuration D of table 1).
STEM = (64, 64, "pool", 128, 128)
VGG16 = {
    "res2": ("pool", 256, 256, 256),
    "res3": ("pool", 512, 512, 512),
    "res4": ("pool", 512, 512, 512),
    "res5": ("pool",),
}


class VGG(Trunk):
    """VGG-16: the convolutions 1_1 to 2_2 are the stem, 3_x, 4_x and 5_x are `res2` to `res4`, the last pool is `res5`.

    A gate is after the ReLU of each of the thirteen convolutions, where the SE paper puts it in networks of this kind
    (section 3.3). Those of the stem belong to `res2` in MODEL.GATE.STAGES and in RG-SE's grid. Convolutions have a
    bias besides their norm, as in torchvision.

    Args:
        common: see `Trunk`.
    """

    def __init__(self, *, norm: str = "BN", **common: Any) -> None:
        super().__init__(norm=norm, **common)
        self.stem, channels = self._stage(3, STEM, norm, "res2")
        stride = 2
        for name, layers in VGG16.items():
            stage, channels = self._stage(channels, layers, norm, name)
            stride *= 2
            self.add_stage(name, stage, channels=channels, stride=stride)
        self.init_weights()

    def _stage(self, channels: int, layers: tuple, norm: str, gates: str) -> tuple[Stage, int]:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for layer in layers:
            if layer == "pool":
                parts["pool"] = Pool("max", 2, stride=2)
                continue
            number = sum(name != "pool" for name in parts) + 1
            parts[f"conv{number}"] = GatedConv(
                channels, layer, 3, padding=1, norm=norm, bias=True, gate=self.gate_factory(gates)
            )
            channels = layer
        return Stage(parts), channels


class VGGClassifier(nn.Module):
    """VGG's three fully connected layers on the trunk's last map, averaged to 7 x 7 where it is not.

    Args:
        trunk: a backbone with `features`, `channels` and `out_features`.
        num_classes: width of the output.
    """

    def __init__(self, trunk: nn.Module, *, num_classes: int = 1000) -> None:
        super().__init__()
        self.trunk = trunk
        self.hidden1 = nn.Linear(trunk.channels[trunk.out_features[-1]] * 49, 4096)
        self.hidden2 = nn.Linear(4096, 4096)
        self.linear = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(0.5)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, to the last feature map (N, 512, H / 32, W / 32)."""
        return self.trunk.features(x)[0][self.trunk.out_features[-1]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), normalised, to logits (N, num_classes)."""
        x = F.adaptive_avg_pool2d(self.forward_features(x), 7).flatten(1)
        for layer in (self.hidden1, self.hidden2):
            x = self.dropout(F.relu(layer(x)))
        return self.linear(x)
