"""A checkpoint as a training leaves one, of a Mask R-CNN that detects in milliseconds, and pictures for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from se_det.config import load_config
from se_det.detection import build_detector

CATEGORIES = [{"id": 4, "name": "cat"}, {"id": 7, "name": "dog, small"}, {"id": 90, "name": "bird"}]
THRESHOLDS = {"cat": 0.35, "bird": 0.25}
KEYS = [
    "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.GATE.NAME", "se", "MODEL.RESNETS.DEPTH", 18,
    "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.1,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 50, "INPUT.MIN_SIZE_TEST", 64, "TEST.DETECTIONS_PER_IMAGE", 20,
]  # fmt: skip


def checkpoint(folder: Path, *keys: Any) -> Path:
    """Random weights, but with scores that differ, boxes that move and masks with borders; with `KEY, value` set."""
    cfg = load_config("configs/mask_rcnn_r50_fpn.yaml", [*KEYS, *keys])
    torch.manual_seed(1)
    model = build_detector(cfg)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(25)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(300)
    path = folder / "model_best.pth"
    saved = {"model": model.state_dict(), "config": cfg.dump(), "categories": CATEGORIES, "thresholds": THRESHOLDS}
    torch.save(saved, path)
    return path


def pictures(folder: Path) -> list[Path]:
    """Noise with bright patches, of several sizes; the last is a JPEG that EXIF turns by a quarter."""
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (height, width) in enumerate([(96, 128), (192, 256), (128, 96), (80, 90)]):
        pixels = random.integers(0, 200, (height, width, 3), np.uint8)
        cv2.rectangle(pixels, (10, 20), (width // 2, height // 2), (255, 200, 40 * number), -1)
        paths.append(folder / f"{number}{'.png' if number == 1 else '.jpg'}")
        cv2.imwrite(str(paths[-1]), pixels)
    turned = folder / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(paths[0]).save(turned, exif=exif, quality=95)
    return [*paths, turned]
