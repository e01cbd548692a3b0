"""The models that label pixels learn the shapes' backgrounds from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest

from se_det.config import load_config
from se_det.training.run import run_training


# Predicting the most frequent class everywhere has a mIoU of 3.4; untrained networks have 11. Seen were 27.3 after 250
# steps and, of the panoptic model at 128 px, 20.8 after 160.
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, steps, side, least", [("semantic", 250, 168, 22), ("panoptic", 160, 128, 16)], ids=["semantic", "panoptic"]
)
def test_classes_of_pixels_are_learned(kind, steps, side, least, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "datasets"))
    from make_shapes import make_shapes

    make_shapes(tmp_path, 300, 40, panoptic=True)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    keys = ["SOLVER.MAX_ITER", steps, "INPUT.MIN_SIZE_TEST", side, "OUTPUT_DIR", str(tmp_path / "run")]
    if side == 128:
        keys += ["INPUT.MIN_SIZE_TRAIN", (128,)]
    metrics = run_training(load_config(f"configs/quickstart_{kind}.yaml", keys))
    assert metrics["sem_seg"]["mIoU"] > least
    if kind == "panoptic":
        assert metrics["panoptic_seg"]["PQ_st"] > 0 and metrics["panoptic_seg"]["SQ_st"] > 40
