"""Detectron2's FCOS under our keys: it has the model, and no config for it but a lazy one."""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS
from detectron2.modeling.meta_arch.fcos import FCOSHead
from fvcore.common.config import CfgNode


@META_ARCH_REGISTRY.register()
def FCOS(cfg: CfgNode) -> Detectron2FCOS:
    """FCOS of MODEL.FCOS on the backbone that the config names."""
    keys, backbone = cfg.MODEL.FCOS, build_backbone(cfg)
    shapes = backbone.output_shape()
    channels = shapes[keys.IN_FEATURES[0]].channels
    head = FCOSHead(
        input_shape=[ShapeSpec(channels=channels)] * len(keys.IN_FEATURES),
        num_classes=keys.NUM_CLASSES,
        conv_dims=[channels] * keys.NUM_CONVS,
        norm=keys.NORM,
        prior_prob=keys.PRIOR_PROB,
    )
    return Detectron2FCOS(
        backbone=backbone,
        head=head,
        head_in_features=list(keys.IN_FEATURES),
        num_classes=keys.NUM_CLASSES,
        center_sampling_radius=keys.POS_RADIUS,
        focal_loss_alpha=keys.LOSS_ALPHA,
        focal_loss_gamma=keys.LOSS_GAMMA,
        test_score_thresh=keys.INFERENCE_TH_TEST,
        test_topk_candidates=keys.PRE_NMS_TOPK_TEST,
        test_nms_thresh=keys.NMS_TH,
        max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
