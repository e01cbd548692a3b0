"""Published figures of the zoo's detectors beside what is measured: what is found, kept, refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.detection import build_detector
from se_det.training import zoo_reproduction
from se_det.training.zoo_reproduction import Row, table
from se_det.weights import config_of_checkpoint

CLASSES = {7: "cat", 9: "dog"}
SQUARE = [10, 10, 70, 10, 70, 70, 10, 70]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images with an object each."""
    folder = tmp_path / "coco"
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number, category in ((1, 7), (2, 9)):
        cv2.imwrite(str(folder / "val2017" / f"{number}.png"), random.integers(0, 256, (96, 128, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
        annotations.append({"id": number, "image_id": number, "category_id": category, "bbox": [10, 10, 60, 60],
                            "area": 3600, "iscrowd": 0, "segmentation": [SQUARE]})  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in CLASSES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def weights(add_detector, tmp_path: Path) -> Path:
    """A folder with the file of an entry, tiny_rcnn."""
    keys = {"MODEL.ROI_HEADS.NUM_CLASSES": 2}
    add_detector("like_it", {}, CLASSES, **keys)
    torch.manual_seed(0)
    path, content = add_detector(
        "tiny_rcnn", build_detector(config_of_checkpoint("zoo://like_it")).state_dict(), CLASSES, **keys
    )
    folder = tmp_path / "brought" / "deeper"
    folder.mkdir(parents=True)
    (folder / Path(path).name).write_bytes(content)
    return folder.parent


def run(coco: Path, tmp_path: Path, *words: object) -> int:
    return main(["reproduce-zoo", "--coco", str(coco), "--only", "tiny_rcnn", "--output", str(tmp_path / "out"),
                 *map(str, words), "MODEL.DEVICE=cpu"])  # fmt: skip


def test_a_figure_that_differs_is_told_and_kept(coco, weights, tmp_path, capsys, monkeypatch):
    assert run(coco, tmp_path, "--weights", weights) == 1
    out = capsys.readouterr().out
    row = json.loads((tmp_path / "out" / "tiny_rcnn" / "result.json").read_text())
    assert row["images"] == 2 and row["measured"]["bbox/AP"] < 20 and row["images_per_second"] > 0
    assert f"| tiny_rcnn | bbox/AP | 40.2 | {row['measured']['bbox/AP']:.2f} |" in out
    assert "differs by more than 0.15" in out and "not so 1: tiny_rcnn" in out
    # What is known is not computed again; within the tolerance, all is well.
    monkeypatch.setattr(zoo_reproduction, "run_evaluation", None)
    assert run(coco, tmp_path, "--weights", weights, "--tolerance", 50) == 0
    assert "1 within 50 of" in capsys.readouterr().out


def test_other_keys_are_evaluated_anew(coco, weights, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(zoo_reproduction, "run_evaluation", lambda cfg: asked.append(cfg) or {"bbox": {"AP": 40.3}})
    assert run(coco, tmp_path, "--weights", weights) == 0
    assert run(coco, tmp_path, "--weights", weights, "INPUT.MIN_SIZE_TEST=64") == 0
    assert run(coco, tmp_path, "--weights", weights, "INPUT.MIN_SIZE_TEST=64") == 0
    assert [cfg.INPUT.MIN_SIZE_TEST for cfg in asked] == [96, 64]


def test_what_is_not_there_is_named(coco, weights, tmp_path, capsys):
    assert run(coco, tmp_path) == 1
    assert "The files of 1 detectors (tiny_rcnn) are not on this machine: give --download" in capsys.readouterr().err
    (coco / "annotations" / "instances_val2017.json").unlink()
    assert run(coco, tmp_path, "--weights", weights) == 1
    assert "instances_val2017.json is not there, by which tiny_rcnn is evaluated" in capsys.readouterr().out


def test_a_number_that_is_none_or_missing_differs():
    assert Row("x", {"bbox/AP": 40.0}, {"bbox/AP": 40.1}).differs(0.05)
    assert not Row("x", {"bbox/AP": 40.0}, {"bbox/AP": 40.1}).differs(0.15)
    assert Row("x", {"bbox/AP": 40.0}, {"bbox/AP": float("nan")}).differs(50)
    missing = Row("x", {"bbox/AP": 40.0, "segm/AP": 30.0}, {"bbox/AP": 40.0})
    assert missing.differs(50) and "not measured" in table([missing], 50)
