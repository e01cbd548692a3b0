"""A detector that AOTInductor compiled finds what PyTorch's does, in a process that knows nothing of se_det."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.export import detector, write
from se_det.inference.runtimes import open_runtime
from se_det.internals import aot_inductor

from .test_detectors import LONG, SHORT, assert_same_detections, batch, photos, reference
from .tiny import tiny

# So many boxes that those of the coarsest level count, whose map has several cells in each direction.
KEYS = ["MODEL.RPN.PRE_NMS_TOPK_TEST", 60, "MODEL.RPN.POST_NMS_TOPK_TEST", 100, "TEST.DETECTIONS_PER_IMAGE", 50,
        "INPUT.MIN_SIZE_TEST", SHORT, "INPUT.MAX_SIZE_TEST", LONG]  # fmt: skip
ELSEWHERE = """
import sys, torch, torchvision
detector = torch._inductor.aoti_load_package(sys.argv[1])
with torch.no_grad():
    found = detector(*torch.load(sys.argv[2]))
assert not any(name.split(".")[0] == "se_det" for name in sys.modules)
torch.save(list(found), sys.argv[3])
"""


@pytest.mark.slow
def test_a_package_without_se_det(tmp_path: Path) -> None:
    """Compiled once, run at 18 sizes in batches of 1, 2 and 5, at one pixel, and in a process of its own."""
    if not aot_inductor.is_available():
        pytest.skip(f"PyTorch {torch.__version__} has no AOTInductor")
    model, cfg = tiny("mask", *KEYS)
    network = detector(model, cfg)
    package = tmp_path / "detector.pt2"
    assert write(network, package, compiled=True) < 1e-4
    runtime = open_runtime(package)
    assert runtime.metadata == network.metadata and "AOTInductor" in runtime.description
    found = 0
    for images in [
        *(photos(n, seed) for seed, n in enumerate((1, 2, 5, 1, 2, 5, 1, 1))),
        [np.full((1, 1, 3), 200, np.uint8)],
    ]:
        found += assert_same_detections(runtime.run(batch(images)), reference(model, cfg, images))
    assert found > 500
    images = photos(2, 9)
    torch.save([torch.from_numpy(value) for value in batch(images)], tmp_path / "inputs")
    names = [str(tmp_path / name) for name in ("detector.pt2", "inputs", "outputs")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *names], check=True, cwd=tmp_path)
    outputs = [value.numpy() for value in torch.load(tmp_path / "outputs")]
    assert assert_same_detections(outputs, reference(model, cfg, images)) > 50
