"""What every host network shares: stages by name, gates by stage, freezing, and the valid area of a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.conv import Conv2d
from ..layers.gates import make_gate
from ..layers.norms import freeze_norms
from ..layers.valid_area import ValidArea
from .blocks import PLACEMENTS, GatedBlock, GateMaker, ResidualBlock

STAGES = ("res2", "res3", "res4", "res5")
PADDINGS = ("keep", "squeeze", "exact")


class Trunk(nn.Module):
    """A stem and four stages, `res2` to `res5`, each a module that takes and returns (map, area).

    A host calls this constructor, sets `self.stem`, adds its stages with `add_stage`, and ends with `init_weights`. Key
    `stem.conv1.weight` is in every host: by it a trunk is found in a weight file.

    Args:
        norm: "BN", "SyncBN", "FrozenBN" or "GN".
        gate, reduction, gate_bias, gate_norm: see `layers.gates`; an empty `gate_norm` follows `norm`.
        gate_stages: the stages whose blocks have the gate.
        gate_init: "paper", or "identity" (a fresh gate leaves the network's function unchanged).
        gate_placement: see `ResidualBlock`; hosts whose `placements` has one value have that one.
        padding: what counts outside each image of a padded batch: "keep", "squeeze" or "exact".
        out_features: the stages to return.

    Raises:
        ConfigError: an argument has a value that is not listed above.
    """

    size_divisibility = 0
    placements: Sequence[str] = PLACEMENTS[:1]

    def __init__(
        self,
        *,
        norm: str = "BN",
        gate: str = "none",
        reduction: int = 16,
        gate_bias: bool = True,
        gate_norm: str = "",
        gate_stages: Sequence[str] = STAGES,
        gate_init: str = "paper",
        gate_placement: str = "standard",
        padding: str = "keep",
        out_features: Sequence[str] = STAGES,
    ) -> None:
        super().__init__()
        check_choice("MODEL.GATE.INIT", gate_init, ("paper", "identity"))
        check_choice("MODEL.GATE.PADDING", padding, PADDINGS)
        check_choice("MODEL.GATE.PLACEMENT", gate_placement, PLACEMENTS)
        for stage in gate_stages:
            check_choice("MODEL.GATE.STAGES", stage, STAGES)
        for stage in out_features:
            check_choice("MODEL.RESNETS.OUT_FEATURES", stage, STAGES)
        if not norm:
            raise ConfigError("MODEL.RESNETS.NORM is empty: use FrozenBN, BN, SyncBN or GN.")
        if gate != "none" and gate_placement not in self.placements:
            raise ConfigError(
                f"MODEL.GATE.PLACEMENT '{gate_placement}' is defined for ResNet, ResNeXt and SENet-154 only; "
                f"{type(self).__name__} has {', '.join(self.placements)}."
            )
        self.padding = padding
        self.out_features = tuple(out_features)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self._gate_init = gate_init
        self._gate_stages = tuple(gate_stages) if gate != "none" else ()
        self._make_gate = partial(make_gate, gate, reduction=reduction, bias=gate_bias, norm=gate_norm or norm)

    def gate_factory(self, stage: str) -> GateMaker | None:
        """What makes the gates of a stage's blocks from their channels; None where the stage has none."""
        return partial(self._make_gate, stage=stage) if stage in self._gate_stages else None

    def add_stage(self, stage: str, module: nn.Module, *, channels: int, stride: int) -> None:
        """Name a stage, in order; `channels` of its output, `stride` from the image to it."""
        self.add_module(stage, module)
        self.channels[stage], self.strides[stage] = channels, stride

    def init_weights(self) -> None:
        """The initial values of the SP/RG authors' code.

        Raises:
            ConfigError: none of `gate_stages` has a block that takes a gate.
        """
        if self._gate_stages and all(block.gate is None for block in self.blocks()):
            raise ConfigError(
                f"MODEL.GATE.STAGES {list(self._gate_stages)} has no block that takes a gate in "
                f"{type(self).__name__}: name a later stage."
            )
        for module in self.modules():
            if isinstance(module, Conv2d):  # the trunk's; a gate's own layers keep PyTorch's values
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self._gate_init == "identity":
            for block in self.blocks():
                block.preserve_function()

    def blocks(self) -> list[GatedBlock]:
        """All blocks that can have a gate, first to last."""
        return [module for module in self.modules() if isinstance(module, GatedBlock)]

    def freeze(self, freeze_at: int) -> None:
        """Fix the stem (1), `res2` too (2), and so on; 0 fixes nothing."""
        for number, name in enumerate(("stem", *self.channels), start=1):
            if number <= freeze_at:
                part = getattr(self, name)
                part.requires_grad_(False)
                freeze_norms(part)
                for block in part.modules():
                    if isinstance(block, ResidualBlock):
                        block.drop_rate = 0.0  # what is fixed is one function

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of the stem and of each block, first to last."""
        blocks = [block for name in self.channels for block in getattr(self, name).children()]
        return [list(part.parameters()) for part in (self.stem, *blocks)]

    def features(
        self, x: torch.Tensor, area: ValidArea | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, ValidArea | None]]:
        """The feature maps by stage, and the area of each."""
        maps: dict[str, torch.Tensor] = {}
        areas: dict[str, ValidArea | None] = {}
        x, area = self.stem(x, area)
        for stage in self.channels:
            x, area = getattr(self, stage)(x, area)
            if stage in self.out_features:
                maps[stage], areas[stage] = x, area
            if len(maps) == len(self.out_features):
                break
        return maps, areas

    def forward(self, x: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> dict[str, torch.Tensor]:
        """Feature maps.

        Args:
            x: (N, 3, H, W), normalised.
            sizes: (height, width) in pixels of each image, at the top left of `x`.

        Returns:
            stage name to (N, C, H / stride, W / stride).

        Raises:
            ConfigError: `padding` is not "keep" and there are no sizes.
        """
        return self.features(x, image_area(self.padding, sizes))[0]


def image_area(padding: str, sizes: Sequence[Sequence[int]] | None) -> ValidArea | None:
    """The area that `padding` asks a backbone to follow; None under "keep"."""
    if padding == "keep":
        return None
    if sizes is None:
        raise ConfigError(f"MODEL.GATE.PADDING {padding} needs the sizes of the images, and none were given.")
    return ValidArea.from_sizes(sizes, exact=padding == "exact")


def check_choice(key: str, value: object, allowed: Sequence | dict) -> None:
    """Refuse a value that is not one of those allowed, by its config key."""
    if value not in allowed:
        raise ConfigError(f"{key} {value!r} is unknown: use one of {', '.join(map(str, allowed))}.")
