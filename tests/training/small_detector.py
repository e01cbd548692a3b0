"""Runs of a small detector on a few drawn images, through the function that the command line calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from se_det.config import load_config
from se_det.training.run import run_training

# All there are, as INPUT.AUGMENTATIONS takes them.
EVERY_AUGMENTATION = [
    {"name": "Mosaic", "size": 64, "probability": 0.5},
    {"name": "LargeScaleJitter", "size": 60, "min_scale": 0.5},
    {"name": "RandomFlip"}, {"name": "CopyPaste", "probability": 0.7}, {"name": "MixUp", "probability": 0.3},
    {"name": "MinIoURandomCrop", "probability": 0.5}, {"name": "RandomRotation", "probability": 0.5},
    {"name": "RandomQuarterTurn"}, {"name": "PhotometricDistort"},
    {"name": "RandomBrightness", "intensity_min": 0.5, "intensity_max": 1.5},
    {"name": "RandomContrast", "intensity_min": 0.5, "intensity_max": 1.5},
    {"name": "RandomSaturation", "intensity_min": 0.5, "intensity_max": 1.5},
    {"name": "RandomLighting", "scale": 20}, {"name": "RandomGrayscale"}, {"name": "GaussianBlur"},
    {"name": "GaussianNoise"}, {"name": "JPEG"}, {"name": "RandomErasing"},
    {"name": "RandomCrop_CategoryAreaConstraint", "probability": 0.3}, {"name": "RandomCrop", "probability": 0.5},
    {"name": "ResizeScale", "min_scale": 0.5, "max_scale": 1.5,
     "target_height": 50, "target_width": 60}, {"name": "FixedSizeCrop", "crop_size": [48, 56], "pad": False},
    {"name": "ResizeShortestEdge", "short_sides": [40, 52], "max_size": 90},
]  # fmt: skip

CATEGORIES = [{"id": 4, "name": "square"}, {"id": 90, "name": "bar"}]


def draw(folder: Path, images: int, categories: list[dict] = CATEGORIES) -> tuple[str, str]:
    """A COCO file and a folder of images with a bright square or bar on noise."""
    rng = np.random.default_rng(images)
    (folder / "images").mkdir(parents=True)
    listed, annotations = [], []
    for i in range(images):
        image = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        kind = i % 2
        w, h = (24, 24) if kind == 0 else (40, 12)
        x, y = int(rng.integers(0, 80 - w)), int(rng.integers(0, 64 - h))
        image[y : y + h, x : x + w] = 220
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        listed.append({"id": 100 + i, "file_name": f"{i}.png", "height": 64, "width": 80})
        annotations.append({
            "id": i + 1, "image_id": 100 + i, "category_id": categories[kind]["id"], "bbox": [x, y, w, h],
            "area": w * h, "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        })  # fmt: skip
    (folder / "data.json").write_text(
        json.dumps({"images": listed, "annotations": annotations, "categories": categories})
    )
    return str(folder / "data.json"), str(folder / "images")


def config(folder: Path, *overrides: Any):
    """A Mask R-CNN that steps in a fraction of a second."""
    torch.set_num_threads(1)
    return load_config(
        "configs/mask_rcnn_se_r18_fpn.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", 0,
         "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
         "INPUT.MIN_SIZE_TRAIN", (64, 80), "INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0, "SEED", 5,
         "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 5, "SOLVER.WARMUP_ITERS", 2, "SOLVER.CHECKPOINT_PERIOD", 2,
         "OUTPUT_DIR", str(folder), *overrides],
    )  # fmt: skip


def train_and_evaluate(folder: str, *overrides: Any, **how: Any) -> None:
    run_training(config(Path(folder), *overrides), **how)
