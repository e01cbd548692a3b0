"""From a config to the models that label pixels; registered here."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from ..backbones.fpn import FPN
from ..errors import ConfigError
from .build import build_backbone, rcnn_parts
from .panoptic_fpn import PanopticFPN
from .registry import META_ARCHITECTURES, SEM_SEG_HEADS
from .sem_seg_head import SemSegFPNHead
from .semantic_segmentor import SemanticSegmentor


@SEM_SEG_HEADS.register(name="SemSegFPNHead")
def sem_seg_fpn_head(cfg: CfgNode, backbone: FPN) -> SemSegFPNHead:
    """Convolutions, doublings and a sum."""
    head = cfg.MODEL.SEM_SEG_HEAD
    unknown = [name for name in head.IN_FEATURES if name not in backbone.strides]
    if unknown:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES {list(head.IN_FEATURES)} must name maps of the backbone: "
            f"{list(backbone.strides)}."
        )
    return SemSegFPNHead(
        in_features={name: (backbone.channels[name], backbone.strides[name]) for name in head.IN_FEATURES},
        num_classes=head.NUM_CLASSES,
        conv_dims=head.CONVS_DIM,
        common_stride=head.COMMON_STRIDE,
        norm=head.NORM,
        loss_weight=head.LOSS_WEIGHT,
        ignore_value=head.IGNORE_VALUE,
    )


def _head(cfg: CfgNode, backbone: FPN) -> Any:
    key = "MODEL.SEM_SEG_HEAD.NAME"
    return SEM_SEG_HEADS.get(cfg.MODEL.SEM_SEG_HEAD.NAME, key)(cfg, backbone)


@META_ARCHITECTURES.register(name="SemanticSegmentor")
def semantic_segmentor(cfg: CfgNode) -> SemanticSegmentor:
    """A class for every pixel."""
    backbone = build_backbone(cfg)
    return SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=_head(cfg, backbone),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


@META_ARCHITECTURES.register(name="PanopticFPN")
def panoptic_fpn(cfg: CfgNode) -> PanopticFPN:
    """Instances and a class for every pixel, and both as one map."""
    if not cfg.MODEL.MASK_ON:
        raise ConfigError(
            "MODEL.META_ARCHITECTURE PanopticFPN needs the instances' masks, and MODEL.MASK_ON is False: set it True."
        )
    parts = rcnn_parts(cfg)
    panoptic = cfg.MODEL.PANOPTIC_FPN
    return PanopticFPN(
        **parts,
        sem_seg_head=_head(cfg, parts["backbone"]),
        instance_loss_weight=panoptic.INSTANCE_LOSS_WEIGHT,
        overlap_threshold=panoptic.COMBINE.OVERLAP_THRESH,
        stuff_area_limit=panoptic.COMBINE.STUFF_AREA_LIMIT,
        score_threshold=panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
    )
