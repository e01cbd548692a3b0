"""Two gloo processes with two images each train the detector as one process with four does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detector_run import train_detector

from se_det.training.launch import free_port, spawn


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(
    "config, gate",
    [
        pytest.param("faster_rcnn_se_r18_fpn.yaml", "se", marks=pytest.mark.slow),
        pytest.param("mask_rcnn_se_r18_fpn.yaml", "se", marks=pytest.mark.slow),
        pytest.param("mask_rcnn_se_r18_fpn.yaml", "cbam", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(tmp_path: Path, config: str, gate: str) -> None:
    spawn(train_detector, (str(tmp_path / "two"), config, gate), processes=2, url=f"tcp://127.0.0.1:{free_port()}")
    threads = torch.get_num_threads()
    train_detector(str(tmp_path / "one"), config, gate)
    torch.set_num_threads(threads)
    one, two = torch.load(tmp_path / "one"), torch.load(tmp_path / "two")
    moved = 0.0
    for name, gradient in one["gradients"].items():
        moved = max(moved, gradient.abs().max().item())
        assert (two["gradients"][name] - gradient).abs().max() < 1e-8, name
    assert moved > 1e-2
    for name, weight in one["weights"].items():
        assert (two["weights"][name] - weight).abs().max() < 1e-5, name
