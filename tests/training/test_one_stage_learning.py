"""One-stage detectors learn from random weights: bright squares and bars on noise, some minutes each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_detector import draw

from se_det.config import load_config
from se_det.training.run import run_training

CASES = {
    "retinanet_se_r50_fpn": [
        "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RETINANET.NORM", "GN", "MODEL.ANCHOR_GENERATOR.SIZES",
        [[12, 15, 19], [24, 30, 38], [48, 60, 76], [96, 120, 152], [192, 240, 304]],
    ],
    "fcos_se_r50_fpn": ["MODEL.FCOS.NUM_CONVS", 1],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_detector_learns_from_random_weights(name: str, tmp_path: Path):
    torch.set_num_threads(1)
    train, val = draw(tmp_path / "train", 32), draw(tmp_path / "val", 12)
    keys = [
        "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32,
        "MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0,
        "MODEL.FPN.OUT_CHANNELS", 64, "MODEL.FPN.NORM", "GN", "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64,
        "DATALOADER.NUM_WORKERS", 0, "SEED", 5, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 150,
        "SOLVER.WARMUP_ITERS", 20, "SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", 0.001, "SOLVER.REFERENCE_BATCH", 0,
        "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.CLIP_GRADIENTS.ENABLED", True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model",
    ]  # fmt: skip
    data = ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", val[0], "DATASETS.VAL_IMAGES", val[1]]  # fmt: skip
    keys += [*CASES[name], *data, "OUTPUT_DIR", str(tmp_path / "out")]
    metrics = run_training(load_config(f"configs/{name}.yaml", keys))
    assert metrics["bbox"]["AP50"] > 60, metrics["bbox"]
