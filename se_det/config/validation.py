"""What the values of keys may be: a number out of range is refused by its key, not by a layer that it breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from ..errors import ConfigError
from .loading import flatten, get_key
from .segmentation_keys import RANGES as SEGMENTATION_RANGES

# key: (least, most), both included; None is no limit.
RANGES: dict[str, tuple[float, float | None]] = {
    "INPUT.MAX_SIZE_TEST": (1, None),
    "INPUT.MIN_SIZE_TEST": (0, None),
    "INPUT.TILE.EMPTY": (0, 0.99),
    "INPUT.TILE.MIN_VISIBLE": (0, 1),
    "INPUT.TILE.OVERLAP": (0, 0.9),
    "INPUT.TILE.SIZE": (0, None),
    "SEED": (-math.inf, 2**63 - 1),
    "MODEL.FPN.OUT_CHANNELS": (1, None),
    "MODEL.GATE.REDUCTION": (1, None),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": (0, None),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": (1, None),
    "MODEL.RESNETS.NUM_GROUPS": (1, None),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": (1, None),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": (1, None),
    "MODEL.RESNETS.STOCHASTIC_DEPTH": (0, 0.99),
    "MODEL.RESNETS.WIDTH_PER_GROUP": (1, None),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": (0, None),
    "MODEL.ROI_BOX_HEAD.CONV_DIM": (1, None),
    "MODEL.ROI_BOX_HEAD.FC_DIM": (1, None),
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": (0, None),
    "MODEL.ROI_BOX_HEAD.NUM_CONV": (0, None),
    "MODEL.ROI_BOX_HEAD.NUM_FC": (0, None),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (1, None),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, None),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": (0, None),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (1, None),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (0, 1),
    "MODEL.ROI_HEADS.NUM_CLASSES": (1, None),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": (0, 1),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (0, 1),
    "MODEL.ROI_HEADS.SOFT_NMS_SIGMA": (1e-6, None),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": (1, None),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": (0, None),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": (1, None),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": (0, None),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (1, None),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": (0, None),
    "MODEL.RPN.LOSS_WEIGHT": (0, None),
    "MODEL.RPN.NMS_THRESH": (0, 1),
    "MODEL.RPN.POSITIVE_FRACTION": (0, 1),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (1, None),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": (1, None),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (1, None),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (1, None),
    "MODEL.RPN.SMOOTH_L1_BETA": (0, None),
    "SOLVER.BACKBONE_LR_FACTOR": (0, None),
    "SOLVER.BIAS_LR_FACTOR": (0, None),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (0, None),
    "SOLVER.GAMMA": (0, None),
    "SOLVER.LAYER_DECAY": (0, 1),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WARMUP_FACTOR": (0, None),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "SOLVER.WEIGHT_DECAY_BIAS": (0, None),
    "SOLVER.WEIGHT_DECAY_NORM": (0, None),
    "TEST.AUG.MAX_SIZE": (1, None),
    "TEST.DETECTIONS_PER_IMAGE": (1, None),
    "TEST.IMS_PER_BATCH": (1, None),
    "TEST.PRECISE_BN.NUM_ITER": (1, None),
    "TEST.TILE.OVERLAP": (0, 0.9),
    "TEST.TILE.SIZE": (0, None),
    "TEST.TILE.THRESHOLD": (0.01, 1),
    **SEGMENTATION_RANGES,
}
TILE_MERGES = ("nms", "ios")
WITHOUT_TILES = ("SemanticSegmentor", "PanopticFPN", "ProposalNetwork")
LEAST_TILE = 32  # px: smaller windows show the surroundings of nothing
POSITIVE = (
    "MODEL.PIXEL_STD",
    "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
)
NUMBERS = {
    "MODEL.PIXEL_MEAN": 3,
    "MODEL.PIXEL_STD": 3,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": 4,
    "MODEL.RPN.BBOX_REG_WEIGHTS": 4,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": 4,
}
INTEGERS = ("SOLVER.STEPS", "INPUT.MIN_SIZE_TRAIN")


def validate_config(cfg: CfgNode) -> None:
    """Refuse values that no part of the program can work with.

    Raises:
        ConfigError: naming the key, its value and what it may be.
    """
    for key, value in flatten(cfg):
        # The largest element is a norm too: SOLVER.CLIP_GRADIENTS.NORM_TYPE may be infinite.
        if isinstance(value, float) and not math.isfinite(value) and not key.endswith("NORM_TYPE"):
            raise ConfigError(f"{key} must be a finite number, got {value}.")
    check_ranges(cfg, RANGES)
    for key, count in NUMBERS.items():
        value = get_key(cfg, key)
        if len(value) != count or not all(_is_number(x) and (x > 0 or key not in POSITIVE) for x in value):
            above = " above 0" if key in POSITIVE else ""
            raise ConfigError(f"{key} must be {count} numbers{above}, got {value}.")
    for key in INTEGERS:
        value = get_key(cfg, key)
        if not all(isinstance(x, int) for x in value):
            raise ConfigError(f"{key} must be whole numbers, got {value}.")
    if not cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE > 0:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.NORM_TYPE must be above 0, got {cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE}."
        )
    for key in ("INPUT.TILE.SIZE", "TEST.TILE.SIZE"):
        size = get_key(cfg, key)
        if 0 < size < LEAST_TILE:
            raise ConfigError(f"{key} must be at least {LEAST_TILE} px, or 0 for whole images, got {size}.")
        if size and cfg.MODEL.META_ARCHITECTURE in WITHOUT_TILES:
            raise ConfigError(
                f"{key} is {size}, and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} takes whole images alone: "
                f"windows are for detectors of boxes and masks. Set {key} 0."
            )
    if cfg.TEST.TILE.MERGE not in TILE_MERGES:
        raise ConfigError(
            f"TEST.TILE.MERGE '{cfg.TEST.TILE.MERGE}' is unknown: use nms (intersection over union) or ios "
            "(intersection over the smaller)."
        )
    for key in ("SIZES", "ASPECT_RATIOS"):
        value = cfg.MODEL.ANCHOR_GENERATOR[key]
        if not all(isinstance(x, (list, tuple)) and x and all(_is_number(y) and y > 0 for y in x) for x in value):
            raise ConfigError(
                f"MODEL.ANCHOR_GENERATOR.{key} must be lists of numbers above 0, such as [[32], [64]], got {value}."
            )
    dims = cfg.MODEL.RPN.CONV_DIMS
    if not dims or not all(isinstance(x, int) and (x == -1 or x > 0) for x in dims):
        raise ConfigError(f"MODEL.RPN.CONV_DIMS must be numbers of channels, or -1 for the map's, got {dims}.")
    for section in ("RPN", "ROI_HEADS"):
        check_matching(cfg, section)


def check_ranges(cfg: CfgNode, ranges: Mapping[str, tuple[float, float | None]]) -> None:
    """Refuse a number out of its range.

    Args:
        ranges: key to (least, most), both included; None is no limit.

    Raises:
        ConfigError: naming the key, its value and what it may be.
    """
    for key, (least, most) in ranges.items():
        value = get_key(cfg, key)
        if value is None:  # SOLVER.WEIGHT_DECAY_BIAS
            continue
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ConfigError(f"{key} must be {f'at most {most}' if least == -math.inf else allowed}, got {value}.")


def check_matching(cfg: CfgNode, section: str) -> None:
    """Refuse IOU_THRESHOLDS and IOU_LABELS of a section of MODEL that cannot label boxes.

    Raises:
        ConfigError: naming the key.
    """
    thresholds, labels = cfg.MODEL[section].IOU_THRESHOLDS, cfg.MODEL[section].IOU_LABELS
    if not thresholds or not all(_is_number(x) for x in thresholds) or list(thresholds) != sorted(thresholds):
        raise ConfigError(f"MODEL.{section}.IOU_THRESHOLDS must be numbers that rise, got {thresholds}.")
    if len(labels) != len(thresholds) + 1 or any(label not in (-1, 0, 1) for label in labels):
        raise ConfigError(
            f"MODEL.{section}.IOU_LABELS must be one more than IOU_THRESHOLDS {thresholds}, each 0 (background), 1 "
            f"(object) or -1 (ignored), got {labels}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
