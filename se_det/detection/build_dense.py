"""A one-stage detector of a config: what RetinaNet's and FCOS's sections have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fvcore.common.config import CfgNode

from .anchors import AnchorGenerator
from .build import build_backbone, check_features
from .dense import DenseDetector
from .dense_head import DenseHead

Kind = TypeVar("Kind", bound=DenseDetector)


def build_dense(
    cfg: CfgNode, kind: type[Kind], section: str, *, anchors: Callable[[Sequence[int]], AnchorGenerator],
    centreness: bool = False, **own: Any,
) -> Kind:  # fmt: skip
    """A `kind` on the maps of IN_FEATURES of a section of MODEL.

    Args:
        section: "RETINANET", "FCOS".
        anchors: makes the generator from the strides of the maps.
        centreness: see `DenseHead`.
        own: what else `kind` takes, its thresholds of inference among it.
    """
    keys = cfg.MODEL[section]
    backbone = build_backbone(cfg)
    features = check_features(cfg, section, backbone)
    generator = anchors([backbone.strides[name] for name in features])
    head = DenseHead(
        in_channels=backbone.channels[features[0]],
        num_classes=keys.NUM_CLASSES,
        anchors_per_cell=generator.anchors_per_cell,
        levels=len(features),
        num_convs=keys.NUM_CONVS,
        norm=keys.NORM,
        prior=keys.PRIOR_PROB,
        centreness=centreness,
    )
    return kind(
        backbone=backbone,
        head=head,
        features=features,
        anchor_generator=generator,
        num_classes=keys.NUM_CLASSES,
        clip_before_nms=keys.CLIP_BEFORE_NMS,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        **own,
    )
