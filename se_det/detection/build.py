"""From a config to a detector: here the keys of the model's own parts are read, and the parts registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from ..backbones.fpn import FPN
from ..backbones.trunk import check_choice
from ..config import validate_config
from ..config.loading import get_key
from ..device import select_device
from ..errors import ConfigError
from ..layers.gates import make_gate
from ..layers.kernels import check_kernels, use_triton
from .anchors import AnchorGenerator
from .bottom_up import RETINANET_BUILDERS, TRUNK_BUILDERS, build_bottom_up, check_backbone
from .box_loss import BOX_LOSSES
from .build_roi_heads import ROI_PARTS
from .fast_rcnn import FastRCNN, is_fast_rcnn
from .nms import NMS_TYPES
from .pooler import POOLER_TYPES
from .rcnn import GeneralizedRCNN
from .registry import (
    ANCHOR_GENERATORS,
    MAP_READING,
    META_ARCHITECTURES,
    MODEL_FACTS,
    PROPOSAL_GENERATORS,
    ROI_HEADS,
    ModelFacts,
    model_facts,
)
from .rpn import RPN
from .rpn_head import RPNHead

# Keys that choose among Detectron2's ways, and the only choice that the parts here have.
SUPPORTED = {
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.BOUNDARY_THRESH": -1,
}
# Those of which the parts here have all.
CHOICES = {
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": BOX_LOSSES,
    "MODEL.ROI_HEADS.NMS_TYPE": NMS_TYPES,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": POOLER_TYPES,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": POOLER_TYPES,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": POOLER_TYPES,
}
# The parts of a GeneralizedRCNN.
PARTS = {
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATORS,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATORS,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS,
    **ROI_PARTS,
}


def check_model(cfg: CfgNode) -> None:
    """Refuse what the builtin engine does not have.

    Raises:
        ConfigError: naming the key and the value.
    """
    validate_config(cfg)
    META_ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE")
    model_facts(cfg).check(cfg)
    check_backbone(cfg)


def check_proposals(cfg: CfgNode) -> None:
    """Refuse what the parts of a proposal network here do not have.

    Raises:
        ConfigError: naming the key and the value.
    """
    _check_parts(cfg, "MODEL.PROPOSAL_GENERATOR.", "MODEL.ANCHOR_GENERATOR.", "MODEL.RPN.")


def check_rcnn(cfg: CfgNode) -> None:
    """Refuse what the parts of a GeneralizedRCNN here do not have.

    Raises:
        ConfigError: naming the key and the value.
    """
    _check_parts(cfg, "MODEL.")
    if cfg.MODEL.KEYPOINT_ON and (cfg.INPUT.TILE.SIZE or cfg.TEST.TILE.SIZE):
        raise ConfigError(
            "Keypoints are not cut into windows: with MODEL.KEYPOINT_ON True set INPUT.TILE.SIZE and TEST.TILE.SIZE 0."
        )
    point_rend = cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.NAME in MAP_READING
    if cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and (cfg.MODEL.KEYPOINT_ON or point_rend):
        raise ConfigError(
            "Res5ROIHeads has neither keypoints (MODEL.KEYPOINT_ON) nor PointRend's masks (MODEL.ROI_MASK_HEAD.NAME): "
            "use MODEL.ROI_HEADS.NAME StandardROIHeads with a pyramid."
        )
    if cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS and not cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE:
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS True needs a score of its own for each class: set "
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True."
        )
    if cfg.MODEL.ROI_BOX_HEAD.NUM_FC < 1 and cfg.MODEL.ROI_BOX_HEAD.NAME == "FastRCNNConvFCHead":
        raise ConfigError(f"MODEL.ROI_BOX_HEAD.NUM_FC must be at least 1, got {cfg.MODEL.ROI_BOX_HEAD.NUM_FC}.")


def _check_parts(cfg: CfgNode, *sections: str) -> None:
    fast = is_fast_rcnn(cfg)
    for key, registry in PARTS.items():
        if fast and key == "MODEL.PROPOSAL_GENERATOR.NAME":
            continue
        if key == "MODEL.ROI_BOX_HEAD.NAME" and not getattr(ROI_HEADS.get(cfg.MODEL.ROI_HEADS.NAME), "box_head", True):
            continue
        if key.startswith(sections):
            registry.get(get_key(cfg, key), key)
    for key, value in SUPPORTED.items():
        given = get_key(cfg, key)
        if given != value and key.startswith(sections):
            raise ConfigError(
                f"{key} is '{given}', and the builtin engine has only '{value}'. If it is one of Detectron2's, run "
                "with --engine detectron2."
            )
    for key, known in CHOICES.items():
        if key.startswith(sections):
            if key == "MODEL.ROI_MASK_HEAD.POOLER_TYPE" and cfg.MODEL.ROI_MASK_HEAD.NAME in MAP_READING:
                known = ("",)
            check_choice(key, get_key(cfg, key), known)


MODEL_FACTS.register(ModelFacts(two_stage=True, test_augmentation=True, check=check_rcnn), name="GeneralizedRCNN")


def build_backbone(cfg: CfgNode) -> nn.Module:
    """The pyramid on its trunk, or a trunk alone."""
    trunk = build_bottom_up(cfg)
    if cfg.MODEL.BACKBONE.NAME in TRUNK_BUILDERS:
        return trunk
    fpn = cfg.MODEL.FPN
    usual = "p6p7_res5" if cfg.MODEL.BACKBONE.NAME in RETINANET_BUILDERS else "max_pool"
    return FPN(
        trunk, in_features=fpn.IN_FEATURES, out_channels=fpn.OUT_CHANNELS, norm=fpn.NORM, fuse=fpn.FUSE_TYPE,
        top_block=fpn.TOP_BLOCK or usual, make_gate=_pyramid_gates(cfg),
    )  # fmt: skip


def _pyramid_gates(cfg: CfgNode) -> Callable[[int, str], nn.Module] | None:
    """What makes the gates of MODEL.GATE.FPN; None without."""
    gate = cfg.MODEL.GATE
    if not gate.FPN:
        return None
    if gate.NAME == "none":
        raise ConfigError("MODEL.GATE.FPN True puts gates on the pyramid, and MODEL.GATE.NAME is none: name one.")
    norm = gate.NORM or cfg.MODEL.FPN.NORM or "GN"
    return lambda channels, stage: make_gate(
        gate.NAME, channels, stage=stage, reduction=gate.REDUCTION, bias=gate.BIAS, norm=norm
    )


def build_detector(cfg: CfgNode) -> nn.Module:
    """The detector that MODEL.META_ARCHITECTURE names, with random weights, in training mode, on the CPU.

    Raises:
        ConfigError: a key has a value that the builtin engine does not have.
    """
    check_model(cfg)
    return META_ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE")(cfg)


@META_ARCHITECTURES.register(name="GeneralizedRCNN")
def generalized_rcnn(cfg: CfgNode) -> GeneralizedRCNN:
    """A Faster or Mask R-CNN; a Fast R-CNN where the proposals come from files."""
    if is_fast_rcnn(cfg):
        return _fast_rcnn(cfg)
    return GeneralizedRCNN(**rcnn_parts(cfg))


def _fast_rcnn(cfg: CfgNode) -> FastRCNN:
    check_kernels(cfg.MODEL.KERNELS, select_device(cfg.MODEL.DEVICE))
    backbone = build_backbone(cfg)
    roi_features = check_features(cfg, "ROI_HEADS", backbone)
    model = FastRCNN(
        backbone=backbone,
        roi_heads=_part(cfg, "MODEL.ROI_HEADS.NAME")(cfg, backbone, roi_features),
        roi_features=roi_features,
        most_proposals=cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    if cfg.MODEL.KERNELS == "triton":
        use_triton(model)
    return model


def rcnn_parts(cfg: CfgNode) -> dict[str, Any]:
    """What a `GeneralizedRCNN` is made of, by the names of its arguments."""
    check_kernels(cfg.MODEL.KERNELS, select_device(cfg.MODEL.DEVICE))
    backbone = build_backbone(cfg)
    rpn_features = check_features(cfg, "RPN", backbone)
    roi_features = check_features(cfg, "ROI_HEADS", backbone)
    parts = {
        "backbone": backbone,
        "proposal_generator": build_proposal_generator(cfg, backbone, rpn_features),
        "roi_heads": _part(cfg, "MODEL.ROI_HEADS.NAME")(cfg, backbone, roi_features),
    }
    if cfg.MODEL.KERNELS == "triton":
        for part in parts.values():
            use_triton(part)
        parts["proposal_generator"].triton = True
    return {
        **parts,
        "rpn_features": rpn_features,
        "roi_features": roi_features,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
    }


def _part(cfg: CfgNode, key: str) -> Callable[..., Any]:
    return PARTS[key].get(get_key(cfg, key), key)


def check_features(cfg: CfgNode, section: str, backbone: FPN) -> list[str]:
    """MODEL.<section>.IN_FEATURES.

    Raises:
        ConfigError: the backbone has no such maps.
    """
    names = list(cfg.MODEL[section].IN_FEATURES)
    maps = list(getattr(backbone, "out_features", backbone.strides))  # a trunk knows more than it gives
    if not names or any(name not in maps for name in names):
        raise ConfigError(f"MODEL.{section}.IN_FEATURES {names} must name maps of the backbone: {maps}.")
    strides = [backbone.strides[name] for name in names]
    # A box goes to the map of its size by counting levels from the first.
    if section == "ROI_HEADS" and any(b != 2 * a for a, b in pairwise(strides)):
        raise ConfigError(
            f"MODEL.ROI_HEADS.IN_FEATURES {names} have strides {strides}; each must be twice the one before."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"MODEL.{section}.IN_FEATURES {names} names a map twice.")
    return names


def check_no_masks(cfg: CfgNode) -> None:
    """Refuse MODEL.MASK_ON and MODEL.KEYPOINT_ON with a detector of boxes alone.

    Raises:
        ConfigError: one is True.
    """
    for key, made in (("MASK_ON", "masks"), ("KEYPOINT_ON", "keypoints")):
        if cfg.MODEL[key]:
            raise ConfigError(
                f"MODEL.{key} is True, and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} makes no {made}: set "
                f"MODEL.{key} False, or use GeneralizedRCNN."
            )


def build_proposal_generator(cfg: CfgNode, backbone: FPN, features: list[str]) -> Any:
    """What MODEL.PROPOSAL_GENERATOR.NAME names, on these maps."""
    return _part(cfg, "MODEL.PROPOSAL_GENERATOR.NAME")(cfg, backbone, features)


def build_mask_head(cfg: CfgNode, in_channels: int) -> Any:
    """What MODEL.ROI_MASK_HEAD.NAME names, on maps of so many channels."""
    return _part(cfg, "MODEL.ROI_MASK_HEAD.NAME")(cfg, in_channels)


def build_anchor_generator(cfg: CfgNode, strides: Sequence[int]) -> Any:
    """What MODEL.ANCHOR_GENERATOR.NAME names, on maps of these strides."""
    return _part(cfg, "MODEL.ANCHOR_GENERATOR.NAME")(cfg, strides)


@ANCHOR_GENERATORS.register(name="DefaultAnchorGenerator")
def default_anchor_generator(cfg: CfgNode, strides: Sequence[int]) -> AnchorGenerator:
    """Anchors of MODEL.ANCHOR_GENERATOR's sizes and shapes on maps of these strides."""
    anchor = cfg.MODEL.ANCHOR_GENERATOR
    return AnchorGenerator(
        sizes=anchor.SIZES,
        aspect_ratios=anchor.ASPECT_RATIOS,
        strides=strides,
        offset=anchor.OFFSET,
        rounded=anchor.ROUNDED,
    )


@PROPOSAL_GENERATORS.register(name="RPN")
def rpn(cfg: CfgNode, backbone: FPN, features: list[str]) -> RPN:
    """The region proposal network on these maps."""
    rpn = cfg.MODEL.RPN
    strides = [backbone.strides[name] for name in features]
    anchors = build_anchor_generator(cfg, strides)
    return RPN(
        head=RPNHead(
            in_channels=backbone.channels[features[0]],
            anchors_per_cell=anchors.anchors_per_cell,
            conv_dims=rpn.CONV_DIMS,
        ),
        anchor_generator=anchors,
        batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
        positive_fraction=rpn.POSITIVE_FRACTION,
        iou_thresholds=rpn.IOU_THRESHOLDS,
        iou_labels=rpn.IOU_LABELS,
        box_weights=rpn.BBOX_REG_WEIGHTS,
        box_loss_type=rpn.BBOX_REG_LOSS_TYPE,
        smooth_l1_beta=rpn.SMOOTH_L1_BETA,
        loss_weight=rpn.LOSS_WEIGHT,
        box_loss_weight=rpn.BBOX_REG_LOSS_WEIGHT,
        pre_nms_topk=(rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
        post_nms_topk=(rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
        nms_threshold=rpn.NMS_THRESH,
        min_size=cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
    )
