"""A tiny network of each kind that is exported, with random weights that find something."""

from __future__ import annotations

import torch
from torch import nn

from se_det.config import get_cfg, load_config
from se_det.detection import build_detector

SHORT, LONG = 64, 128
CLASSES, DETECTIONS = 3, 10
POINT_REND = ["MODEL.ROI_MASK_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.POINT_HEAD.FC_DIM", 16,
              "MODEL.POINT_HEAD.NUM_FC", 1, "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 3,
              "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS", 196, "MODEL.POINT_HEAD.NUM_CLASSES", CLASSES]  # fmt: skip
# The config and its keys; then how far the scores are spread, and their middle.
KINDS = {
    "retinanet": ("retinanet_se_r50_fpn.yaml", ["MODEL.RETINANET.TOPK_CANDIDATES_TEST", 50], 3.0, -3.0),
    "fcos": ("fcos_se_r50_fpn.yaml", ["MODEL.FCOS.PRE_NMS_TOPK_TEST", 50], 3.0, -2.0),
    "keypoint": ("keypoint_rcnn_se_r50_fpn.yaml", ["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 4,
                 "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [16, 16], "MODEL.ROI_HEADS.NUM_CLASSES", CLASSES], 3.0, 0.0),
    "proposals": ("rpn_se_r50_fpn.yaml", ["MODEL.RPN.POST_NMS_TOPK_TEST", DETECTIONS], 3.0, 0.0),
    "c4": ("faster_rcnn_se_r50_c4.yaml", ["MODEL.MASK_ON", True, "MODEL.RPN.PRE_NMS_TOPK_TEST", 100], 3.0, 0.0),
    "dc5": ("faster_rcnn_se_r50_dc5.yaml", ["MODEL.RPN.PRE_NMS_TOPK_TEST", 100], 3.0, 0.0),
    "semantic": ("semantic_fpn_se_r50_fpn.yaml", [], 1.0, 0.0),
    "point_rend": ("point_rend_se_r50_fpn.yaml", POINT_REND, 3.0, 0.0),
    "panoptic": ("panoptic_fpn_se_r50_fpn.yaml", ["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 50], 3.0, 0.0),
    "mask": ("mask_rcnn_se_r18_fpn.yaml", [], 3.0, 0.0),
}  # fmt: skip
THIN = [
    "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
    "MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.ROI_HEADS.NUM_CLASSES", CLASSES, "MODEL.RETINANET.NUM_CLASSES", CLASSES,
    "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.FCOS.NUM_CLASSES", CLASSES, "MODEL.FCOS.NUM_CONVS", 1,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.RPN.PRE_NMS_TOPK_TEST", 40,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 20, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS, "INPUT.MIN_SIZE_TEST", SHORT,
    "INPUT.MAX_SIZE_TEST", LONG,
]  # fmt: skip


def tiny(kind: str, *more: object) -> tuple[nn.Module, object]:
    """The detector and its config."""
    file, own, spread, middle = KINDS[kind]
    cfg = load_config(file, [*THIN, *own, *more], defaults=get_cfg())
    model = build_detector(cfg)
    torch.manual_seed(0)
    scores = {id(layer) for layer in model.score_layers()}
    with torch.no_grad():
        for name, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, torch.Tensor):
                continue
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, nonlinearity="linear" if id(module) in scores else "relu")
                weight.mul_(spread if id(module) in scores else 1)
            elif not name.startswith("backbone"):
                weight.uniform_(0.5, 1.5)
            if getattr(module, "running_var", None) is not None:
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.uniform_(-0.2, 0.2)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.2, 0.2).add_(middle if id(module) in scores else 0)
    return model.eval(), cfg
