"""Trained detectors of torchvision and mmdetection: Faster and Mask R-CNN on a ResNet with FPN.

What a network of theirs computes otherwise than Detectron2's is in the config that is put together here, from the
tensors; what no key can say is in docs/weights.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ...errors import WeightsError
from .conventions import RGB_MEAN, RGB_STD, WeightConventions
from .family import Family, Tensors
from .pytorch import MODERN
from .rules import Rule

BOTTOM_UP, HEADS = "backbone.bottom_up.", "roi_heads."
# COCO's ids that no category has; torchvision's classifiers have a row for each.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
DEPTHS = {6: 50, 23: 101, 36: 152}  # by the blocks of res4

FPN_CONFIG = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": list(RGB_MEAN),
    "MODEL.PIXEL_STD": list(RGB_STD),
}
TORCHVISION_CONFIG = {
    "MODEL.ANCHOR_GENERATOR.ROUNDED": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.SMOOTH_L1_BETA": 1 / 9,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1 / 9,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}


def trunk_rules(before: str) -> tuple[Rule, ...]:
    """A ResNet as torchvision names it."""
    ours, theirs = BOTTOM_UP + "res{s}.{b}.", before + "layer{i}.{b}."
    return (
        Rule(BOTTOM_UP + "stem.conv1.weight", before + "conv1.weight"),
        Rule(BOTTOM_UP + "stem.conv1.norm.{stat}", before + "bn1.{stat}"),
        Rule(ours + "conv{k}.weight", theirs + "conv{k}.weight"),
        Rule(ours + "conv{k}.norm.{stat}", theirs + "bn{k}.{stat}"),
        Rule(ours + "shortcut.weight", theirs + "downsample.0.weight"),
        Rule(ours + "shortcut.norm.{stat}", theirs + "downsample.1.{stat}"),
    )


def layer_rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    """Layers with a weight and a bias."""
    return tuple(Rule(f"{ours}.{{wb}}", f"{theirs}.{{wb}}") for ours, theirs in pairs)


def _normed(*triples: tuple[str, str, str]) -> tuple[Rule, ...]:
    """Convolutions, (ours, theirs, their norm)."""
    return tuple(
        rule
        for ours, theirs, norm in triples
        for rule in (Rule(f"{ours}.{{wb}}", f"{theirs}.{{wb}}"), Rule(f"{ours}.norm.{{stat}}", f"{norm}.{{stat}}"))
    )


_RPN = "proposal_generator.rpn_head."
TORCHVISION_RULES = (
    *trunk_rules("backbone.body."),
    *(
        rule
        for k in range(4)
        for ours, theirs in ((f"backbone.fpn_lateral{k + 2}", "inner"), (f"backbone.fpn_output{k + 2}", "layer"))
        for place in (f"backbone.fpn.{theirs}_blocks.{k}",)
        for rule in (
            *_normed((ours, f"{place}.0", f"{place}.1")),
            *layer_rules((ours, place)),
        )  # the second: before 0.13
    ),
    *layer_rules(
        (_RPN + "objectness_logits", "rpn.head.cls_logits"),
        (_RPN + "anchor_deltas", "rpn.head.bbox_pred"),
        (_RPN + "conv", "rpn.head.conv"),  # before 0.13
        (_RPN + "conv.conv0", "rpn.head.conv.0.0"),
        (_RPN + "conv.conv1", "rpn.head.conv.1.0"),
        (HEADS + "box_head.fc1", HEADS + "box_head.fc6"),
        (HEADS + "box_head.fc2", HEADS + "box_head.fc7"),
        (HEADS + "box_head.fc1", HEADS + "box_head.5"),
        (HEADS + "box_predictor.cls_score", HEADS + "box_predictor.cls_score"),
        (HEADS + "box_predictor.bbox_pred", HEADS + "box_predictor.bbox_pred"),
        (HEADS + "mask_head.deconv", HEADS + "mask_predictor.conv5_mask"),
        (HEADS + "mask_head.predictor", HEADS + "mask_predictor.mask_fcn_logits"),
        *((f"{HEADS}mask_head.mask_fcn{k}", f"{HEADS}mask_head.mask_fcn{k}") for k in range(1, 5)),  # before 0.13
        *((f"{HEADS}keypoint_head.conv_fcn{k + 1}", f"{HEADS}keypoint_head.{2 * k}") for k in range(8)),
        (HEADS + "keypoint_head.score_lowres", HEADS + "keypoint_predictor.kps_score_lowres"),
    ),
    *_normed(
        *((f"{HEADS}box_head.conv{k + 1}", f"{HEADS}box_head.{k}.0", f"{HEADS}box_head.{k}.1") for k in range(4)),
        *(
            (f"{HEADS}mask_head.mask_fcn{k + 1}", f"{HEADS}mask_head.{k}.0", f"{HEADS}mask_head.{k}.1")
            for k in range(4)
        ),
    ),
)
MMDETECTION_RULES = (
    *trunk_rules("backbone."),
    *layer_rules(
        *((f"backbone.fpn_lateral{k + 2}", f"neck.lateral_convs.{k}.conv") for k in range(4)),
        *((f"backbone.fpn_output{k + 2}", f"neck.fpn_convs.{k}.conv") for k in range(4)),
        (_RPN + "conv", "rpn_head.rpn_conv"),
        (_RPN + "objectness_logits", "rpn_head.rpn_cls"),
        (_RPN + "anchor_deltas", "rpn_head.rpn_reg"),
        (HEADS + "box_head.fc1", "roi_head.bbox_head.shared_fcs.0"),
        (HEADS + "box_head.fc2", "roi_head.bbox_head.shared_fcs.1"),
        (HEADS + "box_predictor.cls_score", "roi_head.bbox_head.fc_cls"),
        (HEADS + "box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg"),
        *((f"{HEADS}mask_head.mask_fcn{k + 1}", f"roi_head.mask_head.convs.{k}.conv") for k in range(4)),
        (HEADS + "mask_head.deconv", "roi_head.mask_head.upsample"),
        (HEADS + "mask_head.predictor", "roi_head.mask_head.conv_logits"),
    ),
)


def _unpack_torchvision(tensors: Tensors) -> Tensors:
    """Classes in our order, without COCO's ids that stand for none; a head of one convolution by its name of old."""
    deep = "rpn.head.conv.1.0.weight" in tensors
    result = {}
    for key, tensor in tensors.items():
        if not deep:
            key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if ".box_predictor." in key or ".mask_fcn_logits." in key:
            tensor = _foreground_first(key, tensor)
        result[key] = tensor
    return result


def _foreground_first(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Theirs begins with the background, which ours has last for scores and not at all for boxes and masks."""
    rows = tensor.unflatten(0, (-1, 4)) if ".bbox_pred." in key else tensor[:, None]
    kept = [0, *COCO_IDS] if len(rows) == 91 else list(range(len(rows)))
    background = kept[:1] if ".cls_score." in key else []
    return rows[[*kept[1:], *background]].flatten(0, 1)


def _torchvision_classes(tensors: Tensors) -> str | None:
    if f"{HEADS}keypoint_predictor.kps_score_lowres.weight" in tensors:
        return "person"
    return "coco" if len(tensors[f"{HEADS}box_predictor.cls_score.weight"]) == 91 else None


def trunk_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the tensors, under our names, say of a detector's ResNet.

    Raises:
        WeightsError: it is none of ours.
    """
    blocks = {match[1] for key in tensors if (match := re.match(rf"{re.escape(BOTTOM_UP)}res4\.(\d+)\.conv3", key))}
    if len(blocks) not in DEPTHS:
        raise WeightsError(f"the detector's trunk has {len(blocks)} bottlenecks in res4, which no ResNet here has.")
    trained = any(key.startswith(BOTTOM_UP) and key.endswith("num_batches_tracked") for key in tensors)
    return {"MODEL.RESNETS.DEPTH": DEPTHS[len(blocks)], "MODEL.RESNETS.NORM": "BN" if trained else "FrozenBN"}


def detector_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the shapes of a Faster or Mask R-CNN with FPN say of its config, on `FPN_CONFIG`.

    Args:
        tensors: under our names.

    Raises:
        WeightsError: its trunk is none of ours.
    """
    config: dict[str, Any] = {
        **trunk_config(tensors),
        "MODEL.FPN.NORM": _norm(tensors, "backbone.fpn_lateral2"),
        "MODEL.ROI_HEADS.NUM_CLASSES": len(tensors[f"{HEADS}box_predictor.cls_score.weight"]) - 1,
        "MODEL.ROI_BOX_HEAD.NUM_CONV": _count(tensors, f"{HEADS}box_head.conv", first=1),
        "MODEL.ROI_BOX_HEAD.NUM_FC": _count(tensors, f"{HEADS}box_head.fc", first=1),
        "MODEL.ROI_BOX_HEAD.FC_DIM": len(tensors[f"{HEADS}box_head.fc1.weight"]),
        "MODEL.ROI_BOX_HEAD.NORM": _norm(tensors, f"{HEADS}box_head.conv1"),
    }
    convs = _count(tensors, f"{_RPN}conv.conv", first=0)
    if convs:
        config["MODEL.RPN.CONV_DIMS"] = [-1] * convs
    if f"{HEADS}mask_head.predictor.weight" in tensors:
        config |= {
            "MODEL.MASK_ON": True,
            "MODEL.ROI_MASK_HEAD.NUM_CONV": _count(tensors, f"{HEADS}mask_head.mask_fcn", first=1),
            "MODEL.ROI_MASK_HEAD.NORM": _norm(tensors, f"{HEADS}mask_head.mask_fcn1"),
        }
    if f"{HEADS}keypoint_head.score_lowres.weight" in tensors:
        config |= {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlign",
                   "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 2}  # fmt: skip
    return config


def _count(tensors: Mapping[str, torch.Tensor], name: str, *, first: int) -> int:
    return next(k for k in range(99) if f"{name}{k + first}.weight" not in tensors)


def _norm(tensors: Mapping[str, torch.Tensor], layer: str) -> str:
    return "BN" if f"{layer}.norm.running_mean" in tensors else ""


def _facts(grouped: bool | None) -> WeightConventions:
    return replace(MODERN, class_order=None)


TORCHVISION_DETECTION = Family(
    name="torchvision_detection",
    about="torchvision's Faster, Mask and Keypoint R-CNN on a ResNet with FPN, both versions",
    marker_keys=(r"^backbone\.body\.conv1\.weight$", r"^backbone\.fpn\.inner_blocks\.", r"^roi_heads\.box_predictor\."),
    rules=TORCHVISION_RULES,
    facts=_facts,
    trunk=r"backbone\.body\.",
    unpack=_unpack_torchvision,
    classes=_torchvision_classes,
    detector=lambda tensors: {**FPN_CONFIG, **TORCHVISION_CONFIG, **detector_config(tensors)},
)
MMDETECTION = Family(
    name="mmdetection",
    about="mmdetection's (2 and 3) Faster and Mask R-CNN on a ResNet of the style pytorch with FPN",
    marker_keys=(r"^backbone\.conv1\.weight$", r"^neck\.lateral_convs\.", r"^roi_head\.bbox_head\.fc_cls\."),
    rules=MMDETECTION_RULES,
    facts=_facts,
    trunk=r"backbone\.(conv1|bn1|layer\d)\b",
    detector=lambda tensors: {**FPN_CONFIG, **detector_config(tensors), "MODEL.RESNETS.NORM": "FrozenBN"},
)
