"""Fixtures of the fuzz tests."""

from __future__ import annotations

import pytest
import torch
from fuzz_limits import TINY

from se_det.config import get_cfg, load_config
from se_det.detection import build_detector
from se_det.inference import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    """A small detector of random weights."""
    torch.manual_seed(0)
    cfg = load_config("faster_rcnn_se_r18_fpn.yaml", TINY, defaults=get_cfg())
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({"model": build_detector(cfg).state_dict()}, path)
    return Predictor(cfg, path)
