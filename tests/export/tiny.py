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
BOTTLENECKS = ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32,
               "MODEL.RPN.PRE_NMS_TOPK_TEST", 100]  # fmt: skip
# The config, its keys, and the middle of the scores.
KINDS = {
    "retinanet": ("retinanet_se_r50_fpn.yaml", ["MODEL.RETINANET.TOPK_CANDIDATES_TEST", 50], -3.0),
    "retinanet of torchvision": (
        "retinanet_se_r50_fpn.yaml",
        ["MODEL.RETINANET.TOPK_CANDIDATES_TEST", 50, "MODEL.RETINANET.CLIP_BEFORE_NMS", True,
         "MODEL.FPN.TOP_BLOCK", "p6p7_res5_linear"], -3.0,
    ),
    "fcos": ("fcos_se_r50_fpn.yaml", ["MODEL.FCOS.PRE_NMS_TOPK_TEST", 50], -3.0),
    "keypoint": (
        "keypoint_rcnn_se_r50_fpn.yaml",
        ["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 4, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [16, 16],
         "MODEL.ROI_HEADS.NUM_CLASSES", CLASSES], 0.0,
    ),
    "proposals": ("rpn_se_r50_fpn.yaml", ["MODEL.RPN.POST_NMS_TOPK_TEST", DETECTIONS], 0.0),
    "c4": ("faster_rcnn_se_r50_c4.yaml", ["MODEL.MASK_ON", True, *BOTTLENECKS], 0.0),
    "dc5": ("faster_rcnn_se_r50_dc5.yaml", BOTTLENECKS, 0.0),
    "semantic": ("semantic_fpn_se_r50_fpn.yaml", [], 0.0),
    "point_rend": ("point_rend_se_r50_fpn.yaml", POINT_REND, 0.0),
    "panoptic": ("panoptic_fpn_se_r50_fpn.yaml", ["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 50], 0.0),
    "cascade": ("cascade_mask_rcnn_se_r50_fpn.yaml", [], 0.0),
    "mask": ("mask_rcnn_se_r18_fpn.yaml", [], 0.0),
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


# The spread of what layers give, in the order in which they are run; the others' is left as it is.
SPREAD = {"objectness_logits": 3.0, "anchor_deltas": 0.3, "cls_score": 3.0, "bbox_pred": 0.5, "ctrness": 1.0,
          "score_lowres": 2.0, "mask_head.predictor": 3.0, "prediction": 2.0, "point_head.predictor": 2.0,
          "sem_seg_head.predictor": 1.0}  # fmt: skip


def tiny(kind: str, *more: object) -> tuple[nn.Module, object]:
    """The detector and its config."""
    file, own, middle = KINDS[kind]
    cfg = load_config(file, [*THIN, *own, *more], defaults=get_cfg())
    model = build_detector(cfg).eval()
    random = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor) and weight.ndim > 1:
                nn.init.kaiming_normal_(weight)
            elif isinstance(weight, torch.Tensor) and not name.startswith("backbone"):
                weight.uniform_(0.5, 1.5)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.2, 0.2)
        coarse = torch.rand(2, 3, 6, 6, generator=random) * 255
        images = nn.functional.interpolate(coarse, (64, 80), mode="bicubic").clamp(0, 255)
        for ending, spread in SPREAD.items():
            for layer in [layer for name, layer in model.named_modules() if name.endswith(ending)]:
                _spread(model, layer, images, spread, middle if ending == "cls_score" else 0.0)
    return model, cfg


def _spread(model: nn.Module, layer: nn.Module, images: torch.Tensor, spread: float, middle: float) -> None:
    """Have what a layer gives for images this deviation and mean."""
    given = []
    hook = layer.register_forward_hook(lambda module, inputs, output: given.append(output.transpose(0, 1).flatten(1)))
    model.detect([{"image": image} for image in images])
    hook.remove()
    values = torch.cat(given, 1)
    factor = spread / float((values - values.mean(1, keepdim=True)).std())
    layer.weight.mul_(factor)
    layer.bias.sub_(values.mean(1)).mul_(factor).add_(middle)
