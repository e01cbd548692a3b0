"""FCOS, which Detectron2 has without a YAML config: it is put together from its classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .family import GATES, PADDINGS, SLIM_TRUNK, Family, Keys


def build_theirs(config: str, keys: Keys, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Detectron2's FCOS of our keys."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_backbone
    from detectron2.modeling.backbone.fpn import LastLevelP6P7
    from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

    from se_det.config import load_config
    from se_det.integrations.detectron2 import follow_image_sizes
    from se_det.integrations.detectron2_engine import default_config

    cfg = load_config(config, keys, defaults=default_config())
    fcos, channels = cfg.MODEL.FCOS, cfg.MODEL.FPN.OUT_CHANNELS
    backbone = build_backbone(cfg)
    backbone.top_block = LastLevelP6P7(channels, channels, in_feature="p5")
    backbone._out_features = [f"p{level}" for level in range(3, 8)]
    backbone._out_feature_strides = {f"p{level}": 2**level for level in range(3, 8)}
    backbone._out_feature_channels = dict.fromkeys(backbone._out_features, channels)
    head = FCOSHead(
        input_shape=[ShapeSpec(channels=channels)] * len(fcos.IN_FEATURES), num_classes=fcos.NUM_CLASSES,
        conv_dims=[channels] * fcos.NUM_CONVS, norm=fcos.NORM, prior_prob=fcos.PRIOR_PROB,
    )  # fmt: skip
    model = FCOS(
        backbone=backbone, head=head, head_in_features=fcos.IN_FEATURES, num_classes=fcos.NUM_CLASSES,
        center_sampling_radius=fcos.POS_RADIUS, focal_loss_alpha=fcos.LOSS_ALPHA, focal_loss_gamma=fcos.LOSS_GAMMA,
        test_score_thresh=fcos.INFERENCE_TH_TEST, test_topk_candidates=fcos.PRE_NMS_TOPK_TEST,
        test_nms_thresh=fcos.NMS_TH, max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN, pixel_std=cfg.MODEL.PIXEL_STD,
    )  # fmt: skip
    model.load_state_dict(dict(state), strict=True)
    return follow_image_sizes(model)


def wider_boxes(model: nn.Module) -> None:
    """Sides far enough from their cell for boxes that are not empty."""
    with torch.no_grad():
        model.head.bbox_pred.bias.add_(2.0)


FAMILY = Family(
    config="configs/fcos_se_r50_fpn.yaml",
    keys=[*SLIM_TRUNK, "MODEL.FCOS.NUM_CLASSES", 5, "MODEL.FCOS.NUM_CONVS", 2],
    theirs=build_theirs,
    adjust=wider_boxes,
    axes=[
        GATES,
        PADDINGS,
        [["MODEL.FCOS.NORM", norm] for norm in ("", "GN", "BN")],
        [["MODEL.FCOS.NUM_CONVS", count] for count in (1, 2, 4)],
        [["MODEL.FCOS.POS_RADIUS", radius] for radius in (1.0, 1.5, 2.5)],
        [["MODEL.FCOS.INFERENCE_TH_TEST", score] for score in (0.05, 0.2)],
        [["MODEL.FCOS.PRE_NMS_TOPK_TEST", count] for count in (30, 1000)],
        [["MODEL.FCOS.NMS_TH", iou] for iou in (0.5, 0.6)],
        [["MODEL.RESNETS.NORM", norm] for norm in ("FrozenBN", "BN")],
        [["MODEL.FPN.NORM", norm, "MODEL.FPN.FUSE_TYPE", fuse] for norm, fuse in (("", "sum"), ("GN", "avg"))],
        [["MODEL.FCOS.LOSS_GAMMA", gamma, "MODEL.FCOS.LOSS_ALPHA", alpha]
         for gamma, alpha in ((2.0, 0.25), (1.5, -1.0))],
    ],
    golden={
        "plain": ["MODEL.GATE.NAME", "none"],
        "se_squeeze": ["MODEL.GATE.PADDING", "squeeze", "MODEL.FCOS.INFERENCE_TH_TEST", 0.05],
    },
)  # fmt: skip
