"""Weights and images that are the same on every machine, for comparing networks of two programs by their numbers."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import nn

# Slim bottlenecks and heads: every kind of layer, at the cost of a small network.
SLIM = [
    "MODEL.DEVICE", "cpu",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP", 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
    "MODEL.FPN.OUT_CHANNELS", 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 32,
    "MODEL.ROI_HEADS.NUM_CLASSES", 5,
    "MODEL.BACKBONE.FREEZE_AT", 0,
]  # fmt: skip
# So many anchors and proposals are asked for that all are taken: nothing is left to chance.
SAMPLE_ALL = [
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10_000_000,
    "MODEL.RPN.POSITIVE_FRACTION", 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1_000_000,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0,
]  # fmt: skip


def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value that depends on its name and shape alone; returns `model`.

    Scales are such that maps stay of size one through the network, and scores and boxes are spread out.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            # numpy promises that this generator's numbers never change
            random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
            values = random.standard_normal(tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(_scaled(name, values)))
    return model


def _scaled(name: str, values: np.ndarray) -> np.ndarray:
    if name.endswith("running_var"):
        return np.exp(0.2 * values)
    if values.ndim == 1 and name.endswith("weight"):  # of a norm; the last of a branch keeps the sum from growing
        return (0.4 if "conv3" in name or "conv2.norm" in name else 1.0) * (1 + 0.2 * values)
    if values.ndim == 1:
        return 0.1 * values
    fan_in = values[0].size
    gain = math.sqrt(2 / fan_in)
    if "cls_score" in name:
        gain *= 0.4
    if "objectness_logits" in name:
        gain *= 0.5
    if "mask_head.predictor" in name:  # sharp masks: few pixels lie on the threshold
        gain *= 6.0
    if "bbox_pred" in name or "anchor_deltas" in name:
        gain *= 0.1
    return gain * values


def image(height: int, width: int, seed: int) -> torch.Tensor:
    """uint8 (3, height, width): smooth colours with some noise."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x * random.uniform(0.02, 0.2) + y * random.uniform(0.02, 0.2) + random.uniform(0, 6)) for _ in range(3)
    ]
    pixels = 128 + 90 * np.stack(waves) + random.normal(0, 12, (3, height, width))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def samples() -> list[dict[str, Any]]:
    """Two images of different sizes, with polygons: an object of one part, one of two, and one that is large."""
    first = [
        ([[12, 20, 60, 25, 50, 80, 15, 70]], 0),
        ([[80, 10, 120, 10, 110, 60], [122, 30, 150, 40, 130, 90]], 3),
    ]
    second = [([[5, 5, 180, 8, 170, 90, 10, 85]], 1), ([[60, 30, 90, 30, 90, 55, 60, 55]], 4)]
    return [_sample(image(128, 160, 1), first, 1), _sample(image(96, 192, 2), second, 2)]


def _sample(pixels: torch.Tensor, objects: list[tuple[list[list[float]], int]], image_id: int) -> dict[str, Any]:
    boxes, points, owners, vertices = [], [], [], []
    for number, (parts, _) in enumerate(objects):
        xy = np.concatenate([np.reshape(part, (-1, 2)) for part in parts]).astype(float)
        boxes.append([*xy.min(0), *xy.max(0)])
        vertices.append(xy)
        points += [len(part) // 2 for part in parts]
        owners += [number] * len(parts)
    height, width = pixels.shape[-2:]
    return {
        "image": pixels,
        "height": height,
        "width": width,
        "image_id": image_id,
        "instances": {
            "gt_boxes": torch.tensor(boxes, dtype=torch.float32),
            "gt_classes": torch.tensor([label for _, label in objects]),
            "gt_masks": {
                "polygons": torch.from_numpy(np.concatenate(vertices)),
                "polygon_points": torch.tensor(points),
                "polygon_owner": torch.tensor(owners),
                "bitmaps": torch.zeros(0, height, width, dtype=torch.uint8),
                "bitmap_owner": torch.zeros(0, dtype=torch.int64),
            },
        },
    }
