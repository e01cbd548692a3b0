"""torchvision's Faster and Mask R-CNN on our images: another network, as it has no gates and its own heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from pycocotools import mask as coco_mask
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d


def build_torchvision(cfg: CfgNode, *, training: bool) -> nn.Module:
    """What `fasterrcnn_resnet50_fpn` or `maskrcnn_resnet50_fpn` builds around trained weights, with random ones.

    Fixed norms, the frozen part, image sizes, classes, proposals and detections are the config's.

    Args:
        training: images come resized.
    """
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
