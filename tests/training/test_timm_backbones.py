"""Twenty steps of the builtin engine with backbones of timm's, on real images."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from se_det.config import load_config
from se_det.training.run import run_training

pytest.importorskip("timm", reason="the adapter needs timm")


def losses(name: str, data: Path, folder: Path, *, size: int, gate: str = "none") -> tuple[float, float]:
    """The total loss of the first step, and the median of the steps up to the twentieth."""
    cfg = load_config("configs/base_rcnn_fpn.yaml", [
        "MODEL.BACKBONE.NAME", f"timm/{name}", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "BN",
        "MODEL.GATE.NAME", gate, "MODEL.FPN.OUT_CHANNELS", 64, "MODEL.ROI_BOX_HEAD.FC_DIM", 128,
        "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(folder), "SEED", 1, "DATALOADER.NUM_WORKERS", 0,
        "DATASETS.TRAIN_JSON", str(data / "annotations" / "instances_train2017.json"),
        "DATASETS.TRAIN_IMAGES", str(data / "train2017"), "DATASETS.TEST", (), "DATASETS.TRAIN", (),
        "INPUT.MIN_SIZE_TRAIN", (size,), "INPUT.MAX_SIZE_TRAIN", size * 5 // 3, "SOLVER.MAX_ITER", 20,
        "SOLVER.IMS_PER_BATCH", 4, "SOLVER.REFERENCE_BATCH", 0, "SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", 5e-4,
        "SOLVER.WARMUP_ITERS", 3, "SOLVER.STEPS", (), "SOLVER.CLIP_GRADIENTS.ENABLED", True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 100,
    ])  # fmt: skip
    run_training(cfg)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    totals = [line["total_loss"] for line in lines if "total_loss" in line]
    assert all(math.isfinite(loss) for loss in totals)
    return totals[0], totals[-1]


@pytest.mark.shared_data
def test_a_tiny_convnext_learns(shared_data, tmp_path):
    first, last = losses("test_convnext", shared_data / "coco", tmp_path / "run", size=64)
    assert last < 0.75 * first


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("convnext_atto", "none"),
        ("regnety_002", "none"),
        ("efficientnet_b0", "none"),
        ("swin_tiny_patch4_window7_224", "none"),
        ("convnext_atto", "rg_se"),
    ],
)
def test_backbones_of_timms_learn(name, gate, shared_data, tmp_path):
    first, last = losses(name, shared_data / "coco", tmp_path / "run", size=128, gate=gate)
    print(f"timm/{name}, gate {gate}: total loss {first:.3f} -> {last:.3f}")
    assert last < 0.75 * first
