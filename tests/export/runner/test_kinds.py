"""`--runner` and `--triton` of every kind: the folder writes what `predict` does, and the config says what comes."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable

import numpy as np
import pytest

from se_det.export.runner import write_runner
from se_det.export.triton import write_triton
from se_det.inference.runtimes import open_runtime

from ..batches import picture
from ..cases import ExportCase
from ..results import assert_same_pixels, assert_same_results
from ..test_triton import SCHEMA, parse
from ..tiny import DETECTIONS, KINDS

FOUND = {"boxes": ("FP32", [DETECTIONS, 4]), "scores": ("FP32", [DETECTIONS]), "classes": ("INT64", [DETECTIONS]),
         "counts": ("INT64", [1])}  # fmt: skip
PIXELS = {"sem_seg": ("UINT8", [-1, -1])}


def masks(side: int) -> dict[str, tuple[str, list[int]]]:
    return {**FOUND, "masks": ("FP32", [DETECTIONS, side, side])}


# Of each kind its outputs, their types and dims in Triton.
OUTPUTS = {
    **dict.fromkeys(["retinanet", "retinanet of torchvision", "fcos", "dc5"], FOUND),
    "proposals": {**FOUND, "objectness_logits": ("FP32", [DETECTIONS])},
    "keypoint": {**FOUND, "keypoints": ("FP32", [DETECTIONS, 4, 3])},
    "mask": masks(28), "cascade": masks(28), "c4": masks(14), "point_rend": masks(56),
    "panoptic": {**masks(28), **PIXELS}, "semantic": PIXELS,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_folders(case_of: Callable[[str], ExportCase], tmp_path, kind: str) -> None:
    case = case_of(kind)
    file = case.file(".onnx")
    write_runner(file, tmp_path / "runner")
    run = runpy.run_path(str(tmp_path / "runner" / "predict.py"))["main"]
    assert run([str(case.images), "--output", str(tmp_path / "out"), "--batch", "2"]) == 0
    assert_same_results(
        *(json.loads((folder / "detections.json").read_text()) for folder in (tmp_path / "out", case.drawn))
    )
    assert_same_pixels(tmp_path / "out", case.drawn)

    write_triton(file, tmp_path / "detector")
    config = parse((tmp_path / "detector" / "config.pbtxt").read_text(), SCHEMA)
    assert {each["name"]: (each["data_type"].removeprefix("TYPE_"), each["dims"]) for each in config["output"]} == (
        OUTPUTS[kind]
    )
    images = np.stack([picture(50, 70, number) for number in range(3)])
    outputs = open_runtime(file).run([images, np.array([[50, 70]] * 3)])
    for told, own in zip(config["output"], outputs, strict=True):
        shape = told["reshape"]["shape"] if "reshape" in told else told["dims"]
        assert own.shape[0] == 3 and len(own.shape[1:]) == len(shape), told["name"]
        assert all(side in (-1, length) for side, length in zip(shape, own.shape[1:])), told["name"]
