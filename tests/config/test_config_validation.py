from __future__ import annotations

import math

import pytest

from se_det.config import get_cfg, load_config, merge_overrides, validate_config
from se_det.errors import ConfigError

REFUSED = [
    ("SOLVER.BASE_LR", math.inf), ("SOLVER.GAMMA", -1), ("SOLVER.MOMENTUM", 1.5), ("SOLVER.WEIGHT_DECAY_BIAS", -1),
    ("SOLVER.STEPS", ("a",)), ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", 0), ("INPUT.MIN_SIZE_TRAIN", (64.5,)),
    ("SEED", 2**80), ("TEST.DETECTIONS_PER_IMAGE", -1), ("MODEL.GATE.REDUCTION", 0), ("MODEL.FPN.OUT_CHANNELS", 0),
    ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]), ("MODEL.PIXEL_MEAN", [1.0] * 4), ("MODEL.PIXEL_MEAN", [math.nan, 0, 0]),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0,)), ("MODEL.RPN.CONV_DIMS", []), ("MODEL.RPN.NMS_THRESH", 2.0),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]), ("MODEL.RPN.IOU_LABELS", [0, 1]), ("MODEL.ROI_HEADS.IOU_LABELS", [0, 5]),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [32, 64]), ("MODEL.ANCHOR_GENERATOR.SIZES", [[]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[-1.0]]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_value_that_cannot_work_is_refused_by_its_key(key, value):
    cfg = get_cfg()
    merge_overrides(cfg, [key, value])
    with pytest.raises(ConfigError, match=rf"^{key} must be .*, got "):
        validate_config(cfg)


def test_defaults_and_shipped_values_pass():
    validate_config(get_cfg())
    validate_config(load_config("configs/mask_rcnn_rg_se_x101_fpn.yaml", ["SOLVER.CLIP_GRADIENTS.NORM_TYPE", math.inf]))


@pytest.mark.parametrize("key", ["SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY_BIAS"])
def test_a_whole_number_beyond_all_floats_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} must be a float"):
        load_config(None, [key, 10**400])
