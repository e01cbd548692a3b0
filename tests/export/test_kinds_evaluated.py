"""Files of each kind in a checkpoint's place: the same numbers from `--eval-only`, the same findings from `predict`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from se_det.cli.export import _detector
from se_det.cli.main import main
from se_det.config import merge_overrides
from se_det.errors import ConfigError
from se_det.inference import Predictor
from se_det.inference.exported import config_of_exported
from se_det.inference.runtimes import RUNTIMES
from se_det.training.run import run_evaluation

from .test_detectors import GraphRuntime
from .test_kinds import picture
from .tiny import tiny

NAMES, POINTS = ["ant", "bee", "cat"], ["head", "left", "right", "tail"]
PIXELS = ["thing", "sky", "sea", "sand", "wood"]
SIZES = [(96, 128), (70, 90), (64, 64)]


def write_data(folder: Path, found: Predictor) -> list[object]:
    """Images, whose ground truth is what a checkpoint finds, moved a little; as config keys."""
    points = {"keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]}
    content = {"images": [], "annotations": [],
               "categories": [{"id": 10 + k, "name": n, **points} for k, n in enumerate(NAMES)]}  # fmt: skip
    (folder / "labels").mkdir()
    for number, (height, width) in enumerate(SIZES):
        image, name = picture(height, width, number), f"{number}.png"
        cv2.imwrite(str(folder / name), image[:, :, ::-1])
        content["images"].append({"id": number + 1, "file_name": name, "height": height, "width": width})
        result = found(image[:, :, ::-1])
        labels = np.zeros((height, width), np.uint8) if result.sem_seg is None else result.sem_seg.copy()
        labels[: height // 4] = 1
        cv2.imwrite(str(folder / "labels" / name), labels)
        for at in range(0, len(result.scores), 2):
            x0, y0, x1, y1 = map(float, result.boxes[at])
            box = [x0, y0, (x1 - x0) * 0.9, (y1 - y0) * 0.9]
            own = result.keypoints[at][:, :2] - 0.5 if result.keypoints is not None else np.full((4, 2), 5.0)
            shape = [[x0, y0, x1, y0, x1, y1]]
            if result.masks is not None and result.masks[at].any():
                shape = coco_mask.encode(np.asfortranarray(result.masks[at].astype(np.uint8)))
                shape["counts"] = shape["counts"].decode()
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number + 1, "iscrowd": 0, "bbox": box,
                "category_id": 10 + int(result.classes[at]) % 3, "area": box[2] * box[3],
                "segmentation": shape, "num_keypoints": 4,
                "keypoints": [float(v) for x, y in own for v in (x + 1, y, 2)],
            })  # fmt: skip
    (folder / "v.json").write_text(json.dumps(content))
    return [
        "DATASETS.VAL_JSON",
        str(folder / "v.json"),
        "DATASETS.VAL_IMAGES",
        str(folder),
        "DATALOADER.NUM_WORKERS",
        0,
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "panoptic",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("retinanet", "keypoint", "proposals", "semantic")),
    ],
)
def test_a_file_in_a_checkpoints_place(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cfg = tiny(kind)
    things = [{"id": 10 + k, "name": n, "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]} for k, n in enumerate(NAMES)]
    pixels = [{"id": 30 + k, "name": n} for k, n in enumerate(PIXELS)]
    weights, file = tmp_path / "w.pth", tmp_path / "x.graph"
    content = {"model": model.state_dict(), "config": cfg.dump()}
    if kind not in ("semantic", "proposals"):
        content["categories"] = things
    if kind in ("semantic", "panoptic"):
        content["pixel_classes"] = pixels
    torch.save(content, weights)
    args = {"config_file": None, "part": "detector", "no_preprocessing": False, "overrides": []}
    network = _detector(argparse.Namespace(weights=str(weights), **args))
    monkeypatch.setitem(RUNTIMES._obj_map, ".graph", lambda path, device: GraphRuntime(network))
    file.touch()
    checkpoint, exported = Predictor(weights), Predictor(file)
    for name in (
        "class_names",
        "category_ids",
        "pixel_class_names",
        "pixel_category_ids",
        "keypoint_names",
        "skeleton",
    ):
        assert getattr(exported, name) == getattr(checkpoint, name), name
    data = write_data(tmp_path, checkpoint)
    if kind in ("semantic", "panoptic"):
        data += ["DATASETS.VAL_SEM_SEG", str(tmp_path / "labels"), "DATASETS.SEM_SEG_CLASSES", PIXELS]
    if kind == "semantic":
        data[1] = ""
    metrics = []
    for name, one in (("checkpoint", checkpoint.cfg.clone()), ("exported", config_of_exported(file))):
        one.defrost()
        merge_overrides(one, [*data, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / name)])
        metrics.append(run_evaluation(one))
    assert metrics[0].keys() == metrics[1].keys()
    for task, values in metrics[0].items():
        assert any(0 < value < 100 for value in values.values()), task
        for name, value in values.items():
            assert math.isclose(metrics[1][task][name], value, abs_tol=0.01) or math.isnan(value), (task, name)
    if kind in ("semantic", "panoptic"):
        command = ["predict", "--weights", str(file), str(tmp_path / "0.png"), "--output", str(tmp_path / "out")]
        assert main(command) == 0
        drawn = cv2.imread(str(tmp_path / "out" / "sem_seg" / "0.png"), cv2.IMREAD_UNCHANGED)
        known = checkpoint(tmp_path / "0.png").sem_seg
        assert drawn.shape == known.shape and (drawn != known).mean() < 1e-3
        (names := PIXELS.copy())[0] = "other"
        merge_overrides(one := config_of_exported(file), [*data, "DATASETS.SEM_SEG_CLASSES", names])
        with pytest.raises(ConfigError, match="exported with the classes of pixels thing, sky, .* the data has other"):
            run_evaluation(one)
