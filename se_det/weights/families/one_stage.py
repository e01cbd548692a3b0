"""Trained one-stage detectors of torchvision and mmdetection: RetinaNet and FCOS on a ResNet with FPN.

As in `detectors.py`, what theirs compute otherwise than Detectron2's is in the config that is put together here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .conventions import RGB_MEAN, RGB_STD
from .detectors import COCO_IDS, layer_rules, trunk_config, trunk_rules
from .family import Family, Tensors
from .pytorch import MODERN

SCALES = 3  # anchors' sizes to a level, as many as their ratios
SIZES = [[side * 2 ** (k / SCALES) for k in range(SCALES)] for side in (32, 64, 128, 256, 512)]
PYRAMID_CONFIG = {
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": list(RGB_MEAN),
    "MODEL.PIXEL_STD": list(RGB_STD),
}
TOWERS = {"head.classification_head.conv.": "head.cls_subnet.", "head.regression_head.conv.": "head.bbox_subnet."}
PREDICTORS = (
    ("head.cls_score", "head.classification_head.cls_logits"),
    ("head.bbox_pred", "head.regression_head.bbox_reg"),
    ("head.ctrness", "head.regression_head.bbox_ctrness"),
)


def _unpack_torchvision(tensors: Tensors) -> Tensors:
    """Towers by our numbers, anchors in our order, and of COCO's 91 rows those of its classes."""
    numbers = _tower_numbers(tensors)
    result: Tensors = {}
    for key, tensor in tensors.items():
        for theirs, ours in TOWERS.items():
            if key.startswith(theirs):
                place, _, part = key.removeprefix(theirs).rpartition(".")
                key = f"{ours}{numbers[place]}.{part}"
                # Before a norm theirs has no bias, and ours does.
                if part == "weight" and tensor.ndim == 4:
                    result.setdefault(f"{ours}{numbers[place]}.bias", torch.zeros(len(tensor)))
        if ".cls_logits." in key:
            tensor = _cocos_classes(tensor, _anchors(tensors))
        if _anchors(tensors) > 1 and (".cls_logits." in key or ".bbox_reg." in key):
            tensor = _size_before_ratio(tensor)
        result[key] = tensor
    return result


def _tower_numbers(tensors: Tensors) -> dict[str, int]:
    """Their names of a tower's layers to the numbers of ours, which count the ReLUs."""
    [tower, *_] = TOWERS
    places = {key.removeprefix(tower).rpartition(".")[0] for key in tensors if key.startswith(tower)}
    if not any("." in place for place in places):  # FCOS, and RetinaNet before 0.13
        return {place: int(place) for place in places}
    step = 3 if any(place.endswith(".1") for place in places) else 2
    return {place: step * int(place.split(".")[0]) + int(place.split(".")[1]) for place in places}


def _anchors(tensors: Tensors) -> int:
    """Of each cell."""
    return len(tensors["head.regression_head.bbox_reg.bias"]) // 4


def _cocos_classes(tensor: torch.Tensor, anchors: int) -> torch.Tensor:
    """Rows (A x 91, ...) by COCO's ids to those of its 80 categories; rows of other classes stay."""
    if len(tensor) != 91 * anchors:
        return tensor
    return tensor.unflatten(0, (anchors, 91))[:, list(COCO_IDS)].flatten(0, 1)


def _size_before_ratio(tensor: torch.Tensor) -> torch.Tensor:
    """Rows of each anchor, which theirs count by ratio and then size, and ours by size and then ratio."""
    return tensor.unflatten(0, (SCALES, SCALES, -1)).transpose(0, 1).flatten(0, 2)


def _torchvision_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the shapes of a detector of torchvision's, under our names, say of its config."""
    fcos = "head.ctrness.weight" in tensors
    section = "MODEL.FCOS." if fcos else "MODEL.RETINANET."
    rows, anchors = len(tensors["head.cls_score.bias"]), len(tensors["head.bbox_pred.bias"]) // 4
    normed = "head.cls_subnet.1.weight" in tensors
    from_p5 = tensors["backbone.top_block.p6.weight"].shape[1] == len(tensors["backbone.top_block.p6.weight"])
    config = {
        **PYRAMID_CONFIG,
        **trunk_config(tensors),
        "MODEL.META_ARCHITECTURE": "FCOS" if fcos else "RetinaNet",
        "MODEL.FPN.TOP_BLOCK": "p6p7_p5" if from_p5 else "p6p7_res5",
        section + "NUM_CLASSES": rows // anchors,
        section + "NUM_CONVS": sum(
            key.startswith("head.cls_subnet.") and tensor.ndim == 4 for key, tensor in tensors.items()
        ),
        section + "NORM": "GN" if normed else "",
        section + "CLIP_BEFORE_NMS": True,
    }
    if fcos:
        return {**config, "MODEL.FCOS.OFFSET": 0.0}
    return {
        **config,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[int(size) for size in sizes] for sizes in SIZES],
        "MODEL.ANCHOR_GENERATOR.ROUNDED": True,
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
        **({"MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "giou"} if normed else {}),  # the second version's
        "TEST.DETECTIONS_PER_IMAGE": 300,
    }


def _unpack_mmdetection(tensors: Tensors) -> Tensors:
    """Anchors in our order."""
    return {
        key: _size_before_ratio(tensor)
        if key.startswith(("bbox_head.retina_cls.", "bbox_head.retina_reg."))
        else tensor
        for key, tensor in tensors.items()
    }


def _mmdetection_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the shapes of mmdetection's RetinaNet, under our names, say of its config."""
    return {
        **PYRAMID_CONFIG,
        **trunk_config(tensors),
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.META_ARCHITECTURE": "RetinaNet",
        "MODEL.FPN.TOP_BLOCK": "p6p7_res5_linear",
        "MODEL.ANCHOR_GENERATOR.SIZES": SIZES,
        "MODEL.RETINANET.NUM_CLASSES": len(tensors["head.cls_score.bias"]) // SCALES**2,
        "MODEL.RETINANET.NUM_CONVS": sum(
            re.match(r"head\.cls_subnet\.\d+\.weight", key) is not None for key in tensors
        ),
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
    }


TORCHVISION_ONE_STAGE = Family(
    name="torchvision_one_stage",
    about="torchvision's RetinaNet, both versions, and FCOS on a ResNet with FPN",
    marker_keys=(r"^backbone\.body\.conv1\.weight$", r"^head\.classification_head\.cls_logits\."),
    rules=(
        *trunk_rules("backbone.body."),
        *layer_rules(
            *(
                pair
                for k in range(3)
                for ours, theirs in (
                    (f"backbone.fpn_lateral{k + 3}", "inner"),
                    (f"backbone.fpn_output{k + 3}", "layer"),
                )
                for pair in ((ours, f"backbone.fpn.{theirs}_blocks.{k}.0"), (ours, f"backbone.fpn.{theirs}_blocks.{k}"))
            ),
            *((f"backbone.top_block.{name}", f"backbone.fpn.extra_blocks.{name}") for name in ("p6", "p7")),
            *PREDICTORS,
        ),
    ),
    facts=lambda grouped: replace(MODERN, class_order=None),
    trunk=r"backbone\.body\.",
    unpack=_unpack_torchvision,
    classes=lambda tensors: (
        "coco" if len(tensors["head.classification_head.cls_logits.bias"]) == 91 * _anchors(dict(tensors)) else None
    ),
    detector=_torchvision_config,
)
MMDETECTION_RETINANET = Family(
    name="mmdetection_retinanet",
    about="mmdetection's (2 and 3) RetinaNet on a ResNet of the style pytorch with FPN",
    marker_keys=(r"^backbone\.conv1\.weight$", r"^neck\.lateral_convs\.", r"^bbox_head\.retina_cls\."),
    rules=(
        *trunk_rules("backbone."),
        *layer_rules(
            *((f"backbone.fpn_lateral{k + 3}", f"neck.lateral_convs.{k}.conv") for k in range(3)),
            *((f"backbone.fpn_output{k + 3}", f"neck.fpn_convs.{k}.conv") for k in range(3)),
            *((f"backbone.top_block.p{k + 3}", f"neck.fpn_convs.{k}.conv") for k in (3, 4)),
            *((f"head.cls_subnet.{2 * k}", f"bbox_head.cls_convs.{k}.conv") for k in range(8)),
            *((f"head.bbox_subnet.{2 * k}", f"bbox_head.reg_convs.{k}.conv") for k in range(8)),
            ("head.cls_score", "bbox_head.retina_cls"),
            ("head.bbox_pred", "bbox_head.retina_reg"),
        ),
    ),
    facts=lambda grouped: replace(MODERN, class_order=None),
    trunk=r"backbone\.(conv1|bn1|layer\d)\b",
    unpack=_unpack_mmdetection,
    detector=_mmdetection_config,
)
