"""PointRend for classes of pixels against Detectron2's project on the same weights, with the same random points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from . import segmentation_cases as cases

pytestmark = pytest.mark.detectron2
KEYS = ["MODEL.GATE.NAME", "none", "MODEL.SEM_SEG_HEAD.NAME", "PointRendSemSegHead", "MODEL.POINT_HEAD.NUM_CLASSES",
        cases.CLASSES, "MODEL.POINT_HEAD.FC_DIM", 32, "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 2,
        "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS", 300, "MODEL.POINT_HEAD.TRAIN_NUM_POINTS", 200,
        "MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER", False]  # fmt: skip


def test_losses_gradients_and_logits_are_the_same(monkeypatch):
    pytest.importorskip("detectron2.projects.point_rend", reason="needs Detectron2's projects")
    monkeypatch.setitem(cases.CASES, "points", ("configs/semantic_fpn_r50_fpn.yaml", KEYS))
    # Both draw points in the same order, of the same shapes; what else draws before must not matter.
    monkeypatch.setattr(torch, "rand", drawn)
    ours, theirs = cases.ours("points"), cases.theirs("points")
    assert "points/loss_sem_seg_point" in theirs
    cases.check(ours, theirs, "points")


def drawn(*shape, **_):
    return torch.from_numpy(np.random.RandomState(sum(shape)).rand(*shape).astype(np.float32))
