"""Small one-stage detectors."""

from __future__ import annotations

import torch

from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.dense import DenseDetector

CONFIGS = {"RETINANET": "configs/retinanet_se_r50_fpn.yaml", "FCOS": "configs/fcos_se_r50_fpn.yaml"}


def keys(section: str, *overrides: object) -> list[object]:
    return [
        "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
        "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 32,
        f"MODEL.{section}.NUM_CLASSES", 3, f"MODEL.{section}.NUM_CONVS", 2, *overrides,
    ]  # fmt: skip


def detector(section: str, *overrides: object, lively: bool = False) -> DenseDetector:
    """Random weights; `lively` ones give scores that differ and boxes that move."""
    torch.manual_seed(1)
    model = build_detector(load_config(CONFIGS[section], keys(section, *overrides)))
    if lively:
        with torch.no_grad():
            for layer in model.head.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            model.head.bbox_pred.weight.mul_(0.3)
            if section == "FCOS":
                model.head.bbox_pred.bias.fill_(1.5)
                model.head.cls_score.bias.fill_(-1.0)
    return model
