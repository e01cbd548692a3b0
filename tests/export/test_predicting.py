"""`Predictor`, `predict` and `--eval-only` take an exported file in a checkpoint's place."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.config import merge_overrides
from se_det.errors import ConfigError, WeightsError
from se_det.export import detector
from se_det.inference import Predictor
from se_det.inference.exported import config_of_exported
from se_det.inference.runtimes import RUNTIMES, open_runtime
from se_det.training.run import run_evaluation

from .test_detectors import GraphRuntime, photos, small

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A checkpoint's predictor and the name of a file "x.graph", which a runtime of the test's own runs."""
    model, cfg = small("faster")
    categories = [{"id": 10 + number, "name": name} for number, name in enumerate(NAMES)]
    torch.save({"model": model.state_dict(), "categories": categories}, tmp_path / "w.pth")
    network = detector(model, cfg, class_names=NAMES, category_ids=[10, 11, 12], thresholds=[0.5, None, 0.25])
    monkeypatch.setitem(RUNTIMES._obj_map, ".graph", lambda path, device: GraphRuntime(network))
    (tmp_path / "x.graph").touch()
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return Predictor(cfg, tmp_path / "w.pth"), tmp_path / "x.graph"


def test_a_predictor_of_an_exported_file(pair) -> None:
    checkpoint, file = pair
    exported = Predictor(file)
    assert exported.class_names == NAMES and exported.category_ids == [10, 11, 12]
    assert exported.thresholds == [0.5, None, 0.25]
    for image in photos(3, 2):
        ours, theirs = exported(image[:, :, ::-1]), checkpoint(image[:, :, ::-1])
        assert len(ours.scores) == len(theirs.scores) > 0
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_keys_that_a_file_has_settled_are_refused(pair) -> None:
    _, file = pair
    assert config_of_exported(file, ["TEST.IMS_PER_BATCH", 3]).TEST.IMS_PER_BATCH == 3
    with pytest.raises(ConfigError, match="MODEL.ROI_HEADS.SCORE_THRESH_TEST was settled when .*x.graph was exported"):
        config_of_exported(file, ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3])


def test_the_command(pair, tmp_path: Path) -> None:
    _, file = pair
    cv2.imwrite(str(tmp_path / "a.png"), photos(1, 3)[0])
    assert main(["predict", "--weights", str(file), str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert found and {entry["category_id"] for entry in found} <= {10, 11, 12}


def test_evaluation_gives_the_checkpoints_numbers(pair, tmp_path: Path) -> None:
    """The ground truth is what the checkpoint finds, moved a little, so that AP is neither 0 nor 100."""
    checkpoint, file = pair
    content = {"images": [], "annotations": [], "categories": [{"id": 10 + k, "name": n} for k, n in enumerate(NAMES)]}
    for number, image in enumerate(photos(4, 4)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[:, :, ::-1])
        content["images"].append({"id": number + 1, "file_name": f"{number}.png", "height": image.shape[0],
                                  "width": image.shape[1]})  # fmt: skip
        found = checkpoint(image[:, :, ::-1])
        for (x0, y0, x1, y1), label in list(zip(found.boxes.tolist(), found.classes.tolist()))[::2]:
            box = [x0, y0, (x1 - x0) * 0.9, (y1 - y0) * 0.9]
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": number + 1, "iscrowd": 0, "category_id": 10 + label,
                 "bbox": box, "area": box[2] * box[3]}
            )  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps(content))
    data = ["DATASETS.VAL_JSON", str(tmp_path / "v.json"), "DATASETS.VAL_IMAGES", str(tmp_path)]
    data += ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0]
    metrics = []
    for name, cfg in (("checkpoint", checkpoint.cfg.clone()), ("exported", config_of_exported(file))):
        cfg.defrost()
        merge_overrides(cfg, [*data, "OUTPUT_DIR", str(tmp_path / name)])
        metrics.append(run_evaluation(cfg)["bbox"])
        assert (tmp_path / name / "report.html").is_file()
    assert 0 < metrics[0]["AP"] < 100
    for name, value in metrics[0].items():
        assert math.isclose(metrics[1][name], value, abs_tol=0.01) or math.isnan(value), name
    content["categories"][0]["name"] = "dog"
    (tmp_path / "v.json").write_text(json.dumps(content))
    cfg = config_of_exported(file, [*data, "OUTPUT_DIR", str(tmp_path / "other")])
    with pytest.raises(ConfigError, match="exported with the classes ant, bee, cat .* the data has dog, bee, cat"):
        run_evaluation(cfg)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.onnx", "is not there"), ("bad.onnx", "cannot be loaded"), ("bad.engine", "needs the package tensorrt"),
     ("bad.pt2", "cannot be loaded")],
)  # fmt: skip
def test_files_that_cannot_be_run(tmp_path: Path, name: str, reason: str) -> None:
    if name == "bad.onnx":
        pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "se_det[export]"')
    if not name.startswith("gone"):
        (tmp_path / name).write_bytes(b"no network")
    with pytest.raises(WeightsError, match=reason):
        open_runtime(tmp_path / name)
