"""A result: a mapping of columns, a sequence of detections, and its ways out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError
from se_det.inference import Predictor, Result, draw_detections
from se_det.inference.predict_files import RESULTS, predict_files
from se_det.inference.sources import find_sources

NAMES, IDS = ["car", "person", "traffic light"], [7, 1, 90]
CONFIG = [
    "MODEL.WEIGHTS", "zoo://gone", "MODEL.DEVICE", "cuda:7", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
    "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
    "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.02, "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
    "INPUT.MIN_SIZE_TEST", 90, "DATASETS.TRAIN_JSON", "/gone/train.json", "OUTPUT_DIR", "/gone/run",
]  # fmt: skip


def checkpoint(path: Path, *, config: bool = True, thresholds: dict | None = None) -> Path:
    """Of random weights, but with scores that differ and boxes that move."""
    cfg = load_config("configs/mask_rcnn_se_r50_fpn.yaml", CONFIG)
    torch.manual_seed(1)
    model = build_detector(cfg)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(25)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(300)
    content = {
        "engine": "se_det", "model": model.state_dict(), "iteration": 5,
        "categories": [{"id": i, "name": n} for i, n in zip(IDS, NAMES)],
    }  # fmt: skip
    if config:
        content["config"] = cfg.dump()
    if thresholds is not None:
        content["thresholds"] = thresholds
    torch.save(content, path)
    return path


def picture(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("run")
    plain = Predictor(checkpoint(folder / "w.pth"))(str(picture(folder / "a.png")))
    middle = float(np.sort(plain.scores[plain.classes == 0])[2])  # the third of all cars
    assert plain.thresholds == [None] * 3
    return Predictor(checkpoint(folder / "w.pth", thresholds={"car": middle, "person": None}))(folder / "a.png")


def test_a_result_is_the_mapping_it_was(found: Result) -> None:
    columns = {"boxes", "scores", "classes", "masks"}
    assert set(found) == found.keys() == dict(found).keys() == {**found}.keys() == columns
    assert all(found[name] is dict(found)[name] is getattr(found, name) for name in columns)
    assert [name for name, _ in found.items()] == list(found) and len(list(found.values())) == 4
    assert "masks" in found and "segments" not in found and found.get("segments") is None
    with pytest.raises(KeyError):
        found["segments"]
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again["boxes"], found.boxes)


def test_a_result_is_a_sequence_of_detections(found: Result) -> None:
    count = len(found)
    assert count == len(found.scores) >= 10 and found
    some = found.scores > np.median(found.scores)
    sure = found[some]
    assert isinstance(sure, Result) and len(sure) == some.sum()
    for name in found:
        np.testing.assert_array_equal(sure[name], found[name][some])
        np.testing.assert_array_equal(found[:3][name], found[name][:3])
        np.testing.assert_array_equal(found[[4, 0]][name], found[name][[4, 0]])
        np.testing.assert_array_equal(found[torch.tensor([4, 0])][name], found[name][[4, 0]])
        np.testing.assert_array_equal(found[-1][name], found[name][-1:])
    assert len(found[[]]) == 0 and not found[[]] and found[[]].masks.shape == (0, 96, 128)
    for wrong in (count, [True] * (count + 1), np.ones((count, 2), bool), 0.5, None):
        with pytest.raises(IndexError):
            found[wrong]
    assert found[:2].names == [NAMES[k] for k in found.classes[:2]]


def test_classes_are_chosen_by_name_and_id(found: Result) -> None:
    two = found.of("car", 90)
    assert set(two.classes.tolist()) == {0, 2} and len(two) == np.isin(found.classes, [0, 2]).sum()
    np.testing.assert_array_equal(two.scores, found.of("traffic light", "7").scores)
    with pytest.raises(ConfigError, match=r"no class 'persn'\. Did you mean 'person'\? There are car \(id 7\), person"):
        found.of("persn")
    with pytest.raises(ConfigError, match="no class '2'"):
        found.of(2)


def test_above_thresholds_takes_the_checkpoints(found: Result) -> None:
    limits = [np.sort(found.scores[found.classes == 0])[2], 0.5, 0.5]
    kept = [k for k in range(len(found)) if found.scores[k] >= limits[found.classes[k]]]
    cars = (found.classes == 0).sum()
    assert 0 < len(kept) < len(found) and cars > 3
    np.testing.assert_array_equal(found.above_thresholds().boxes, found.boxes[kept])
    assert len(found.above_thresholds().of("car")) == cars - 2


def test_coco_results_are_those_that_predict_writes(found: Result, tmp_path: Path) -> None:
    sources, _ = find_sources([str(picture(tmp_path / "a.png"))], tmp_path / "out")
    (tmp_path / "out").mkdir()
    predict_files(Predictor(weights=checkpoint(tmp_path / "w.pth")), sources, tmp_path / "out")
    written = json.loads((tmp_path / "out" / RESULTS).read_text())
    assert [{**e, "file_name": str(sources[0].path)} for e in found.to_coco(1)] == written
    assert {e["category_id"] for e in written} <= set(IDS) and "segmentation" in written[0]


def test_what_is_drawn_is_the_result(found: Result, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    instances = {"pred_boxes": found.boxes, "scores": found.scores, "pred_classes": found.classes,
                 "pred_masks": found.masks}  # fmt: skip
    expected = draw_detections(cv2.imread(str(path)), instances, NAMES, score_threshold=0.0)
    np.testing.assert_array_equal(found.draw(path), expected)
    np.testing.assert_array_equal(found[[]].draw(cv2.imread(str(path))), cv2.imread(str(path)))
    assert (found.above_thresholds().draw(path) != expected).any()


def test_detections_of_supervision(found: Result) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections) and len(theirs) == len(found)
    for ours, name in (("boxes", "xyxy"), ("masks", "mask"), ("scores", "confidence"), ("classes", "class_id")):
        np.testing.assert_array_equal(getattr(theirs, name), found[ours])
    assert theirs.data["class_name"].tolist() == found.names
    cars = theirs[theirs.data["class_name"] == "car"]
    np.testing.assert_array_equal(cars.xyxy, found.of("car").boxes)
    assert len(found[[]].to_supervision()) == 0
    plain = Result({k: found[k] for k in ("boxes", "scores", "classes")}, class_names=NAMES).to_supervision()
    assert plain.mask is None and len(plain) == len(found)


def test_without_supervision_a_sentence(found: Result, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        found.to_supervision()


def test_predict_takes_a_checkpoint_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, found: Result) -> None:
    caplog.set_level("INFO")
    path = picture(tmp_path / "a.png")
    limit = found.thresholds[0]
    weights = checkpoint(tmp_path / "w.pth", thresholds={"car": limit, "person": None, "traffic light": None})
    command = ["predict", "--weights", str(weights), "--output"]
    assert main([*command, str(tmp_path / "all"), str(path)]) == 0
    assert "best F1" in caplog.text and f"car {limit:.2f}; the other classes from 0.5" in caplog.text
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "all" / "a.png")),
        draw_detections(
            cv2.imread(str(path)),
            {f"pred_{k}" if k != "scores" else k: v for k, v in found.above_thresholds().items()},
            NAMES,
            score_threshold=0.0,
            enlarge_below=400,
        ),
    )
    written = json.loads((tmp_path / "all" / RESULTS).read_text())
    assert len(written) == len(found)  # those that are not drawn, too

    assert main([*command, str(tmp_path / "some"), str(path), "--classes", "car", "90", "TEST.IMS_PER_BATCH=2"]) == 0
    caplog.clear()
    some = json.loads((tmp_path / "some" / RESULTS).read_text())
    assert some == [e for e in written if e["category_id"] in (7, 90)] and len(some) < len(written)

    assert main([*command, str(tmp_path / "flat"), str(path), "--score-threshold", "0.3"]) == 0
    assert "best F1" not in caplog.text


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--classes", "cra"], "no class 'cra'. Did you mean 'car'?"),
        (["TEST.IMS_PER_BATHC=2"], "TEST.IMS_PER_BATCH"),
        (["--score-threshold", "2"], "between 0 and 1"),
    ],
)
def test_predict_refuses_in_a_sentence(tmp_path: Path, capsys, more: list[str], told: str) -> None:
    weights = checkpoint(tmp_path / "w.pth")
    command = [
        "predict",
        "--weights",
        str(weights),
        "--output",
        str(tmp_path / "out"),
        str(picture(tmp_path / "a.png")),
    ]
    assert main([*command, *more]) == 1
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_lacks_is_told(tmp_path: Path, capsys) -> None:
    path, weights = str(picture(tmp_path / "a.png")), str(checkpoint(tmp_path / "w.pth", config=False))
    out = ["--output", str(tmp_path / "out")]
    assert main(["predict", "--weights", weights, *out, path]) == 1
    assert "--config-file" in capsys.readouterr().err
    assert main(["predict", *out, path]) == 1
    assert "--weights" in capsys.readouterr().err
    assert main(["predict", "--weights", weights, *out, "--classes", "car", path]) == 1
    assert "was taken for classes" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="carries no config"):
        Predictor(weights)
    with pytest.raises(ConfigError, match="No weights"):
        Predictor()
    with pytest.raises(ConfigError, match=r"load_config\('c.yaml'\)"):
        Predictor("c.yaml", weights)
