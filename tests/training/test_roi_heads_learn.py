"""A cascade with PointRend's masks and keypoints learns, from random weights, what it is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from se_det.cli.main import run_command

KEYS = [
    "MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True",
    "MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "",
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", "True", "MODEL.ROI_MASK_HEAD.FC_DIM", "128",
    "MODEL.ROI_MASK_HEAD.IN_FEATURES", "('p3',)", "MODEL.POINT_HEAD.IN_FEATURES", "('p3',)",
    "MODEL.POINT_HEAD.FC_DIM", "64", "MODEL.POINT_HEAD.SUBDIVISION_STEPS", "3",
    "MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(64, 64)",
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", "0.5",
    "MODEL.ROI_HEADS.IN_FEATURES", "['p3', 'p4', 'p5']",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "128", "INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", "128",
    "INPUT.RANDOM_FLIP", "none", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "240", "SOLVER.WARMUP_ITERS", "20",
    "TEST.DETECTIONS_PER_IMAGE", "20",
]  # fmt: skip
# AP50 of boxes, masks and keypoints on the images that were learnt; unlearned weights have 0.
LEAST = {"bbox": 30, "segm": 30, "keypoints": 15}


@pytest.mark.slow
def test_boxes_masks_and_keypoints_are_learnt(tmp_path: Path):
    datasets = Path(__file__).resolve().parents[2] / "datasets"
    sys.path.insert(0, str(datasets))
    try:
        from make_shapes import make_shapes
    finally:
        sys.path.remove(str(datasets))
    root = make_shapes(tmp_path, 6, 1, seed=1)
    words = ["--config-file", "configs/quickstart.yaml", "OUTPUT_DIR", str(tmp_path / "out"), *KEYS]
    for part in ("TRAIN", "VAL"):
        words += [f"DATASETS.{part}_JSON", str(root / "annotations" / "instances_train.json"),
                  f"DATASETS.{part}_IMAGES", str(root / "train")]  # fmt: skip
    assert run_command("train", words) == 0
    metrics = json.loads((tmp_path / "out" / "inference" / "metrics.json").read_text())
    found = {task: values["AP50"] for task, values in metrics.items()}
    print(found)
    assert all(found[task] > least for task, least in LEAST.items()), found
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
