"""A small detector and samples for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from se_det.config import load_config

SMALL = [
    "MODEL.RESNETS.NORM", "BN",
    "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.ROI_HEADS.NUM_CLASSES", 3,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
    "MODEL.FPN.OUT_CHANNELS", 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 100,
    "MODEL.RPN.PRE_NMS_TOPK_TEST", 100,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32,
]  # fmt: skip


def small_config(gate: str = "se", masks: bool = True, overrides: tuple = ()):
    cfg = load_config("configs/mask_rcnn_se_r18_fpn.yaml", [*SMALL, "MODEL.GATE.NAME", gate, *overrides])
    cfg.MODEL.MASK_ON = masks
    return cfg


def no_masks(height: int, width: int) -> dict[str, torch.Tensor]:
    return {
        "polygons": torch.zeros(0, 2, dtype=torch.float64),
        "polygon_points": torch.zeros(0, dtype=torch.int64),
        "polygon_owner": torch.zeros(0, dtype=torch.int64),
        "bitmaps": torch.zeros(0, height, width, dtype=torch.uint8),
        "bitmap_owner": torch.zeros(0, dtype=torch.int64),
    }


def make_sample(height: int, width: int, boxes: list[list[float]], seed: int = 0) -> dict[str, Any]:
    """An image of noise with box-shaped instances: the first a bitmap, the others polygons."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    masks = no_masks(height, width)
    if boxes:
        x1, y1, x2, y2 = map(int, boxes[0])
        masks["bitmaps"] = torch.zeros(1, height, width, dtype=torch.uint8)
        masks["bitmaps"][0, y1:y2, x1:x2] = 1
        masks["bitmap_owner"] = torch.tensor([0])
        corners = [[[a, b], [c, b], [c, d], [a, d]] for a, b, c, d in boxes[1:]]
        masks["polygons"] = torch.tensor(corners, dtype=torch.float64).reshape(-1, 2)
        masks["polygon_points"] = torch.full((len(corners),), 4)
        masks["polygon_owner"] = torch.arange(1, len(boxes))
    return {
        "image": image,
        "height": height,
        "width": width,
        "image_id": seed,
        "instances": {
            "gt_boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "gt_classes": torch.arange(len(boxes)) % 3,
            "gt_masks": masks,
        },
    }


@pytest.fixture
def samples() -> list[dict[str, Any]]:
    """Two images of different sizes, the second without ground truth."""
    return [make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]]), make_sample(64, 80, [], seed=1)]
