"""torchvision's detectors on our images: another network, as it has no gates and its own heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from pycocotools import mask as coco_mask
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..config.loading import get_key

# By our name: torchvision's class, and which keys its arguments are.
ONE_STAGE = {
    "RetinaNet": (RetinaNet, {
        "classes": "MODEL.RETINANET.NUM_CLASSES", "score_thresh": "MODEL.RETINANET.SCORE_THRESH_TEST",
        "nms_thresh": "MODEL.RETINANET.NMS_THRESH_TEST", "topk_candidates": "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
    }),
    "FCOS": (FCOS, {
        "classes": "MODEL.FCOS.NUM_CLASSES", "score_thresh": "MODEL.FCOS.INFERENCE_TH_TEST",
        "nms_thresh": "MODEL.FCOS.NMS_TH", "topk_candidates": "MODEL.FCOS.PRE_NMS_TOPK_TEST",
    }),
}  # fmt: skip


def build_torchvision(cfg: CfgNode, *, training: bool) -> nn.Module:
    """What `fasterrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn`, `retinanet_resnet50_fpn` or `fcos_resnet50_fpn` builds
    around trained weights, with random ones.

    Fixed norms, the frozen part, image sizes, classes, proposals and detections are the config's.

    Args:
        training: images come resized.
    """
    if cfg.MODEL.META_ARCHITECTURE in ONE_STAGE:
        return _one_stage(cfg, training=training)
    depth, stages = cfg.MODEL.RESNETS.DEPTH, 5
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}", weights=None, norm_layer=FrozenBatchNorm2d,
        trainable_layers=stages - cfg.MODEL.BACKBONE.FREEZE_AT,
    )  # fmt: skip
    heads, rpn = cfg.MODEL.ROI_HEADS, cfg.MODEL.RPN
    model = (MaskRCNN if cfg.MODEL.MASK_ON else FasterRCNN)(
        backbone,
        num_classes=heads.NUM_CLASSES + 1,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        rpn_pre_nms_top_n_train=rpn.PRE_NMS_TOPK_TRAIN,
        rpn_pre_nms_top_n_test=rpn.PRE_NMS_TOPK_TEST,
        rpn_post_nms_top_n_train=rpn.POST_NMS_TOPK_TRAIN,
        rpn_post_nms_top_n_test=rpn.POST_NMS_TOPK_TEST,
        rpn_batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
        box_batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
        box_score_thresh=heads.SCORE_THRESH_TEST,
        box_nms_thresh=heads.NMS_THRESH_TEST,
        box_detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE,
        _skip_resize=training,
    )
    return model.to(cfg.MODEL.DEVICE)


def has_counterpart(cfg: CfgNode) -> bool:
    """Whether torchvision has a detector of this kind."""
    return cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", *ONE_STAGE)


def score_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that give scores."""
    if hasattr(model, "rpn"):
        return [model.rpn.head.cls_logits, model.roi_heads.box_predictor.cls_score]
    return [model.head.classification_head.cls_logits]


def _one_stage(cfg: CfgNode, *, training: bool) -> nn.Module:
    kind, keys = ONE_STAGE[cfg.MODEL.META_ARCHITECTURE]
    keys = {argument: get_key(cfg, key) for argument, key in keys.items()}
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{cfg.MODEL.RESNETS.DEPTH}", weights=None, norm_layer=FrozenBatchNorm2d,
        trainable_layers=5 - cfg.MODEL.BACKBONE.FREEZE_AT, returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(2048 if kind is RetinaNet else 256, 256),
    )  # fmt: skip
    model = kind(
        backbone,
        num_classes=keys.pop("classes") + 1,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE,
        _skip_resize=training,
        **keys,
    )
    return model.to(cfg.MODEL.DEVICE)


class AsOurs(nn.Module):
    """torchvision's detector on samples of `to_torchvision`, as `train` calls a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return self.model([sample["image"] for sample in samples], [sample["target"] for sample in samples])


def to_torchvision(sample: Mapping[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """One of our samples as torchvision takes it: RGB from 0 to 1 on the device; with ground truth it stays resized,
    else it has its file's size again."""
    image = sample["image"].float() / 255
    image = image.flip(0) if cfg.INPUT.FORMAT == "BGR" else image
    if "instances" not in sample:
        image = F.interpolate(image[None], size=(sample["height"], sample["width"]), mode="bilinear")[0]
        return {"image": image.to(cfg.MODEL.DEVICE)}
    truth = sample["instances"]
    target = {"boxes": truth["gt_boxes"], "labels": truth["gt_classes"] + 1}
    if "gt_masks" in truth:
        target["masks"] = _filled(truth["gt_masks"], len(target["labels"]), *image.shape[-2:])
    target = {name: value.to(cfg.MODEL.DEVICE) for name, value in target.items()}
    return {"image": image.to(cfg.MODEL.DEVICE), "target": target, "image_id": sample.get("image_id")}


def _filled(masks: Mapping[str, torch.Tensor], count: int, height: int, width: int) -> torch.Tensor:
    """Polygons, see `detection/masks.py`, as uint8 (count, height, width)."""
    filled = torch.zeros(count, height, width, dtype=torch.uint8)
    pieces = masks["polygons"].split(masks["polygon_points"].tolist())
    for points, owner in zip(pieces, masks["polygon_owner"].tolist()):
        (rle,) = coco_mask.frPyObjects([points.flatten().tolist()], height, width)
        filled[owner] |= torch.from_numpy(coco_mask.decode(rle))
    filled[masks["bitmap_owner"]] |= masks["bitmaps"]
    return filled
