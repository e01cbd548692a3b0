"""Our backbones in Detectron2: importing this module registers them.

    from se_det.integrations.detectron2 import add_se_det_config
    add_se_det_config(cfg)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.GATE.NAME = "build_se_resnet_fpn_backbone", "se"

With MODEL.GATE.PADDING squeeze the gates need to know the images' sizes, which Detectron2 does not hand to a backbone:
`follow_image_sizes(build_model(cfg))` lets them.
"""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..backbones import catalog
from ..backbones.fpn import TOP_BLOCKS
from ..backbones.timm_trunk import PREFIX as TIMM
from ..backbones.trunk import check_choice
from ..config.defaults import add_se_det_config
from ..detection.build import build_bottom_up
from ..errors import ConfigError
from .detectron2_version import check_detectron2

check_detectron2()

from detectron2.layers import ShapeSpec  # noqa: E402  (after the check, whose sentence says more than an ImportError)
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7  # noqa: E402

__all__ = ["add_se_det_config", "as_backbone", "create_backbone", "follow_image_sizes", "register_backbone"]


class _TrunkBackbone:
    """What Detectron2 asks of a backbone, mixed into the class of one of our trunks."""

    image_sizes: list[tuple[int, int]] | None = None

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 3, H, W), normalised, to maps by stage."""
        # Each batch brings its own sizes: those of the last one are never used again.
        sizes, self.image_sizes = self.image_sizes, None
        if sizes is None and self.padding != "keep":
            raise ConfigError(
                f"MODEL.GATE.PADDING {self.padding} needs the sizes of the images, and none were given: call "
                "se_det.integrations.detectron2.follow_image_sizes(model) after build_model(cfg)."
            )
        return super().forward(x, sizes)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=self.channels[name], stride=self.strides[name]) for name in self.out_features}


@functools.cache
def _backbone_class(trunk_class: type[nn.Module]) -> type[nn.Module]:
    return type(trunk_class.__name__, (_TrunkBackbone, trunk_class, Backbone), {"__module__": __name__})


def as_backbone(trunk: nn.Module) -> Backbone:
    """`trunk`, one of ours, as a backbone of Detectron2's: the same object, with the same parameter names.

    Raises:
        ConfigError: its padding is "exact", which needs a detector that knows of it.
    """
    if trunk.padding == "exact":
        raise ConfigError(
            "MODEL.GATE.PADDING exact needs the builtin engine, whose whole detector follows it: use squeeze or keep, "
            "or run with --engine builtin."
        )
    # Not a wrapper: one would put its own name before every parameter's.
    trunk.__class__ = _backbone_class(type(trunk))
    return trunk


def create_backbone(name: str, *, freeze_at: int = 0, **options: Any) -> Backbone:
    """One of our trunks by its name, for lazy configs: `L(create_backbone)(name="se_resnet50", norm="FrozenBN")`.

    Args:
        freeze_at: as MODEL.BACKBONE.FREEZE_AT.
        options: see `se_det.create_backbone`.
    """
    trunk = catalog.create_backbone(name, **options)
    trunk.freeze(freeze_at)
    return as_backbone(trunk)


def follow_image_sizes(model: nn.Module) -> nn.Module:
    """Let the backbone of a Detectron2 model know the size of every image; needed by MODEL.GATE.PADDING squeeze.

    For every meta-architecture, and under test-time augmentation. Copies of the model follow as well.

    Returns:
        `model`.
    """
    if not any(trunk.padding != "keep" for trunk in _trunks(model)):
        return model
    if hasattr(model, "preprocess_image"):
        model.preprocess_image = MethodType(_preprocess_image, model)
    else:  # ProposalNetwork and SemanticSegmentor batch their images in `forward`
        model.register_forward_pre_hook(_before_forward)
    return model


def _trunks(model: nn.Module) -> list[_TrunkBackbone]:
    return [module for module in model.modules() if isinstance(module, _TrunkBackbone)]


def _preprocess_image(model: nn.Module, batched_inputs: list[dict[str, Any]]) -> Any:
    images = type(model).preprocess_image(model, batched_inputs)
    for trunk in _trunks(model):
        trunk.image_sizes = images.image_sizes
    return images


def _before_forward(model: nn.Module, args: tuple) -> None:
    for trunk in _trunks(model):
        trunk.image_sizes = [tuple(sample["image"].shape[-2:]) for sample in args[0]]


def register_backbone(name: str) -> None:
    """Let MODEL.BACKBONE.NAME be `name`, a model of the catalog or "timm/<name>": that trunk with Detectron2's FPN.

    A name that is registered, or is nobody's, is left to Detectron2.
    """
    if name not in BACKBONE_REGISTRY and (name.startswith(TIMM) or catalog.is_model(name)):
        BACKBONE_REGISTRY._do_register(name, build_se_resnet_fpn_backbone)


# Detectron2 calls a builder with the config and the shape of its input, which for our trunks is three channels.
@BACKBONE_REGISTRY.register()
def build_se_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The trunk alone: maps by stage, those of MODEL.RESNETS.OUT_FEATURES."""
    if "GATE" not in cfg.MODEL:
        raise ConfigError(
            "The config lacks se_det's keys (MODEL.GATE): call add_se_det_config(cfg) before it is filled."
        )
    if input_shape.channels != 3:
        raise ConfigError(
            f"MODEL.PIXEL_MEAN has {input_shape.channels} numbers, and MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} "
            "takes images of 3 channels."
        )
    return as_backbone(build_bottom_up(cfg))


@BACKBONE_REGISTRY.register()
def build_se_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's FPN on the trunk, with P6 from P5: for Faster, Mask and Cascade R-CNN."""
    return _pyramid(cfg, build_se_resnet_backbone(cfg, input_shape), "max_pool")


@BACKBONE_REGISTRY.register()
def build_se_resnet_retinanet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's FPN on the trunk, with P6 and P7 from the trunk's last map: for RetinaNet."""
    return _pyramid(cfg, build_se_resnet_backbone(cfg, input_shape), "p6p7_res5")


def _pyramid(cfg: CfgNode, trunk: Backbone, usual_top: str) -> FPN:
    fpn = cfg.MODEL.FPN
    if cfg.MODEL.GATE.FPN:
        raise ConfigError("MODEL.GATE.FPN True is the builtin engine's alone: set it False, or use --engine builtin.")
    unknown = [name for name in fpn.IN_FEATURES if name not in trunk.out_features]
    if unknown or not fpn.IN_FEATURES:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES {list(fpn.IN_FEATURES)} must name maps that the backbone returns: "
            f"{list(trunk.out_features)} (MODEL.RESNETS.OUT_FEATURES)."
        )
    return FPN(
        bottom_up=trunk,
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=_top_block(cfg, trunk, usual_top),
        fuse_type=fpn.FUSE_TYPE,
    )


def _top_block(cfg: CfgNode, trunk: Backbone, usual: str) -> nn.Module:
    """What MODEL.FPN.TOP_BLOCK names."""
    name, channels = cfg.MODEL.FPN.TOP_BLOCK or usual, cfg.MODEL.FPN.OUT_CHANNELS
    check_choice("MODEL.FPN.TOP_BLOCK", name, TOP_BLOCKS)
    if name.endswith("_linear"):
        raise ConfigError(
            f"MODEL.FPN.TOP_BLOCK {name} is the builtin engine's alone: use another, or --engine builtin."
        )
    source = TOP_BLOCKS[name]
    if not source:
        return LastLevelMaxPool()
    if source == "p5":
        return LastLevelP6P7(channels, channels, in_feature=source)
    if source not in trunk.out_features:
        raise ConfigError(
            f"MODEL.RESNETS.OUT_FEATURES {list(trunk.out_features)} lacks {source}, which P6 and P7 are made from."
        )
    return LastLevelP6P7(trunk.channels[source], channels)
