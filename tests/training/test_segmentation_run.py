"""Runs of models that label pixels: trained, resumed, evaluated, reported and used, on a few drawn images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_detector import config, draw

from se_det.config import load_config
from se_det.data.pixel_labels import panoptic_pixels, read_panoptic_png
from se_det.errors import DataError
from se_det.inference import Predictor
from se_det.inference.predict_files import predict_files
from se_det.inference.sources import find_sources
from se_det.training.checkpoint import load_checkpoint
from se_det.training.run import run_evaluation, run_training

KEYS = [
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "SOLVER.MAX_ITER", 4, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATE", 2,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 20, "INPUT.CROP.ENABLED", True,
]  # fmt: skip


def draw_labelled(folder: Path) -> list[Any]:
    """`small_detector.draw`, with the image's left and right as stuff: label PNGs, and COCO's panoptic files."""
    json_path, images = draw(folder, 4)
    content = json.loads(Path(json_path).read_text())
    for name in ("labels", "panoptic"):
        (folder / name).mkdir()
    annotations = []
    for image, thing in zip(content["images"], content["annotations"]):
        x, y, w, h = thing["bbox"]
        numbers = np.full((64, 80), 2)
        numbers[:, 40:] = 3
        numbers[y : y + h, x : x + w] = 1
        name = image["file_name"]
        cv2.imwrite(str(folder / "labels" / name), (numbers - 1).astype(np.uint8))
        cv2.imwrite(str(folder / "panoptic" / name), panoptic_pixels(numbers)[..., ::-1])
        infos = [
            {"id": n, "category_id": c, "iscrowd": 0, "area": int((numbers == n).sum())}
            for n, c in ((1, thing["category_id"]), (2, 100), (3, 101))
        ]
        annotations.append({"image_id": image["id"], "file_name": name, "segments_info": infos})
    stuff = [{"id": 100, "name": "left", "isthing": 0}, {"id": 101, "name": "right", "isthing": 0}]
    categories = [{**c, "isthing": 1} for c in content["categories"]] + stuff
    document = {"images": content["images"], "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(document))
    return [json_path, images]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_labelled(folder)
    return folder


def semantic(files: Path, output: Path, *overrides: Any):
    names = ["DATASETS.SEM_SEG_CLASSES", ["thing", "left", "right"]]
    keys = [k for p in ("TRAIN", "VAL") for k in (f"DATASETS.{p}_SEM_SEG", str(files / "labels"),
                                                  f"DATASETS.{p}_IMAGES", str(files / "images"))]  # fmt: skip
    cfg = config(output, *KEYS, *keys, *names, "MODEL.MASK_ON", False, *overrides)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    return cfg


def panoptic(files: Path, output: Path, *overrides: Any):
    keys = [k for p in ("TRAIN", "VAL") for k in (f"DATASETS.{p}_PANOPTIC_JSON", str(files / "panoptic.json"),
                                                  f"DATASETS.{p}_JSON", str(files / "data.json"),
                                                  f"DATASETS.{p}_IMAGES", str(files / "images"))]  # fmt: skip
    cfg = config(output, *KEYS, *keys, *overrides)
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    return cfg


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory) -> dict[str, Path]:
    result = {}
    for name, make in (("semantic", semantic), ("panoptic", panoptic)):
        result[name] = tmp_path_factory.mktemp(name)
        metrics = run_training(make(files, result[name], "TEST.EVAL_LOSS", True))
        tasks = {"sem_seg", "validation"} | ({"bbox", "segm", "panoptic_seg"} if name == "panoptic" else set())
        assert set(metrics) == tasks and metrics["validation"]["loss_sem_seg"] > 0
    return result


def test_the_data_says_how_many_classes_and_what_evaluates(trained):
    cfg = load_config(str(trained["panoptic"] / "config.yaml"))
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3 and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert list(cfg.TEST.EVALUATORS) == ["coco", "sem_seg", "panoptic"]
    assert cfg.TEST.BEST_METRIC == "panoptic_seg/PQ"
    assert list(load_config(str(trained["semantic"] / "config.yaml")).TEST.EVALUATORS) == ["sem_seg"]


@pytest.mark.parametrize("name", ["semantic", "panoptic"])
def test_a_resumed_run_ends_as_one_that_never_stopped(files, trained, tmp_path, name):
    make = {"semantic": semantic, "panoptic": panoptic}[name]
    first = min(trained[name].glob("model_0*.pth"))  # after two of the four steps
    for file in (first, trained[name] / "config.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "last_checkpoint").write_text(first.name)
    run_training(make(files, tmp_path, "TEST.EVAL_LOSS", True), resume=True)
    one, other = (load_checkpoint(folder / "model_final.pth")["model"] for folder in (trained[name], tmp_path))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_report_has_numbers_and_pictures(trained):
    semantic_page, panoptic_page = ((trained[name] / "report.html").read_text() for name in ("semantic", "panoptic"))
    for text in ("Classes of pixels", "mIoU", "boundary IoU", "Confusion of classes of pixels", "right"):
        assert text in semantic_page and text in panoptic_page
    assert "Panoptic quality" in panoptic_page and "Average precision and recall" in panoptic_page
    assert semantic_page.count("data:image/jpeg") == 8 and panoptic_page.count("data:image/jpeg") >= 16


@pytest.mark.parametrize("name", ["semantic", "panoptic"])
def test_predict_writes_and_draws_what_was_found(files, trained, tmp_path, name):
    predictor = Predictor(trained[name] / "model_final.pth")
    sources, _ = find_sources([str(files / "images" / "0.png"), str(files / "images" / "1.png")], tmp_path)
    assert predict_files(predictor, sources, tmp_path).images == 2
    result = predictor(files / "images" / "1.png")
    labels = cv2.imread(str(tmp_path / "sem_seg" / "1.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, result.sem_seg) and labels.shape == (64, 80)
    drawn, plain = (cv2.imread(str(folder / "1.png")) for folder in (tmp_path, files / "images"))
    assert drawn.shape == plain.shape and (drawn != plain).any()
    assert result[:0].sem_seg is result.sem_seg
    if name == "semantic":
        assert predictor.pixel_class_names == ["thing", "left", "right"] and len(result) == 0
        assert result.panoptic_seg is None and not (tmp_path / "panoptic.json").exists()
        return
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["square", "bar", "left", "right"]
    entry = content["annotations"][1]
    numbers = read_panoptic_png(tmp_path / "panoptic" / entry["file_name"])
    assert np.array_equal(numbers, result.panoptic_seg[0])
    assert {info["id"] for info in entry["segments_info"]} == set(np.unique(numbers)) - {0}
    assert {info["category_id"] for info in entry["segments_info"]} <= {4, 90, 100, 101}


def test_predict_never_writes_labels_over_an_image(files, trained, tmp_path):
    predictor = Predictor(trained["semantic"] / "model_final.pth")
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "sem_seg").mkdir(parents=True)
    out.mkdir()
    for name, number in (("a.png", 0), ("sem_seg/a.png", 1)):
        (photos / name).write_bytes((files / "images" / f"{number}.png").read_bytes())
    predict_files(predictor, find_sources([str(photos)], out)[0], out)
    written = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert written == {"a.png", "sem_seg/a.png", "sem_seg/a_png.png", "sem_seg/sem_seg/a.png"}
    assert cv2.imread(str(out / "sem_seg" / "a.png"), cv2.IMREAD_UNCHANGED).ndim == 3  # what was drawn
    labels = cv2.imread(str(out / "sem_seg" / "a_png.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, predictor(photos / "a.png").sem_seg)

    inside = [str(photos / "sem_seg" / "a.png")]
    with pytest.raises(DataError, match="where the pixels' labels are written: give another output folder"):
        predict_files(predictor, find_sources(inside, photos)[0], photos)
    assert (photos / "sem_seg" / "a.png").read_bytes() == (files / "images" / "1.png").read_bytes()


def test_an_evaluation_gives_the_runs_numbers_and_writes_its_files(files, trained, tmp_path):
    weights = trained["panoptic"] / "model_final.pth"
    found = run_evaluation(panoptic(files, tmp_path, "MODEL.WEIGHTS", str(weights)))
    written = json.loads((trained["panoptic"] / "inference" / "panoptic_metrics.json").read_text())["panoptic_seg"]
    for key, value in written.items():
        assert value is None or found["panoptic_seg"][key] == pytest.approx(value)
    inference = tmp_path / "inference"
    assert sorted(p.name for p in (inference / "panoptic").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert {"sem_seg_metrics.json", "sem_seg_predictions.json", "panoptic_predictions.json", "metrics.json"} <= {
        p.name for p in inference.iterdir()
    }


def test_data_of_the_wrong_kind_is_refused(files, tmp_path):
    cfg = semantic(files, tmp_path)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(DataError, match="classes of pixels and no instances"):
        run_training(cfg)
    cfg = panoptic(files, tmp_path)
    cfg.DATASETS.TRAIN_PANOPTIC_JSON = cfg.DATASETS.VAL_PANOPTIC_JSON = ""
    with pytest.raises(DataError, match="has no classes of pixels"):
        run_training(cfg)
