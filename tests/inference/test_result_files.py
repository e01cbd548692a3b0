"""Pre-annotations for labelling tools, read back by our own reader and by the tools' own packages."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_tools

from se_det.cli.main import main
from se_det.config import get_cfg, load_config
from se_det.data.formats.cvat import CvatFormat
from se_det.data.formats.tree import Tree
from se_det.detection import build_detector
from se_det.errors import ConfigError
from se_det.inference import Predictor, Result
from se_det.inference.result_files.cvat import runs
from se_det.inference.result_files.label_studio import brush

TINY = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.DEVICE", "cpu",
        "MODEL.FPN.OUT_CHANNELS", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
        "MODEL.ROI_HEADS.NUM_CLASSES", "3", "INPUT.MIN_SIZE_TEST", "32", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
        "TEST.DETECTIONS_PER_IMAGE", "4", "MODEL.RPN.POST_NMS_TOPK_TEST", "10",
        "MODEL.RPN.PRE_NMS_TOPK_TEST", "50"]  # fmt: skip
NAMES = ["a & <b>", "ü", 'say "c"']


@pytest.fixture(scope="module", params=["mask", "faster"])
def call(request, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command with a tiny untrained detector, with masks or without."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    cfg = load_config(f"{request.param}_rcnn_se_r18_fpn.yaml", TINY, defaults=get_cfg())
    categories = [{"id": 5 + k, "name": name} for k, name in enumerate(NAMES)]
    state = {"model": build_detector(cfg).state_dict(), "config": cfg.dump(), "categories": categories}
    torch.save(state, folder / "w.pth")
    return ["predict", "--weights", str(folder / "w.pth")]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("photos/a b.jpg", "photos/deep/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(name, rng.integers(0, 256, (48, 64, 3), np.uint8))
    return tmp_path / "photos"


def expected(call: list[str], photos: Path) -> dict[str, list[dict]]:
    """COCO's results by file, of those above 0.2."""
    assert main([*call, "--output", "coco", "photos"]) == 0
    found: dict[str, list[dict]] = {}
    for result in json.loads(Path("coco/detections.json").read_text()):
        if result["score"] >= 0.25:
            found.setdefault(os.path.relpath(result["file_name"], "photos"), []).append(result)
    assert found
    return found


def test_cvat_is_read_back(call: list[str], photos: Path) -> None:
    wanted = expected(call, photos)
    words = [*call, "--format", "cvat", "--score-threshold", "0.25", "--output", "photos/cvat", "photos"]
    assert main(words) == 0
    assert (photos / "cvat" / "a b.jpg").exists() and not (photos / "cvat" / "detections.json").exists()
    os.replace(photos / "cvat" / "annotations.xml", photos / "annotations.xml")
    form, tree = CvatFormat(), Tree(photos)
    reading = form.read(tree, form.recognise(tree))
    assert [category.name for category in reading.categories] == NAMES
    pictures = [picture for split in reading.splits.values() for picture in split]
    assert {str(p.path.relative_to(photos)) for p in pictures} == {"a b.jpg", "deep/c.png"}
    for picture in pictures:
        results = wanted.get(str(picture.path.relative_to(photos)), [])
        if results and "segmentation" in results[0]:
            results = [r for r in results if mask_tools.area(r["segmentation"])]
        assert [shape.label for shape in picture.shapes] == [NAMES[r["category_id"] - 5] for r in results]
        for shape, result in zip(picture.shapes, results):
            if "segmentation" not in result:
                x, y, w, h = result["bbox"]
                assert shape.box == pytest.approx((x, y, x + w, y + h), abs=0.006)
                continue
            mask = np.zeros((48, 64), bool)
            left, top = shape.corner
            mask[top : top + shape.mask.shape[0], left : left + shape.mask.shape[1]] = shape.mask
            assert (mask == mask_tools.decode(result["segmentation"]).astype(bool)).all()


def test_label_studio(call: list[str], photos: Path) -> None:
    wanted = expected(call, photos)
    words = [*call, "--format", "label-studio", "--score-threshold", "0.25", "--output", "out", "photos"]
    assert main(words) == 0
    tasks = json.loads(Path("out/label_studio.json").read_text())
    places = [unquote(task["data"]["image"].removeprefix("/data/local-files/?d=")) for task in tasks]
    assert sorted(places) == ["photos/a b.jpg", "photos/deep/c.png"]
    kind = "brushlabels" if call_has_masks(wanted) else "rectanglelabels"
    for task, place in zip(tasks, places):
        [prediction] = task["predictions"]
        results = wanted.get(os.path.relpath(place, "photos"), [])
        assert len(prediction["result"]) == len(results)
        for region, result in zip(prediction["result"], results):
            assert region["type"] == kind and region["value"][kind] == [NAMES[result["category_id"] - 5]]
            assert (region["original_width"], region["original_height"]) == (64, 48)
            if kind == "rectanglelabels":
                box = [region["value"][side] for side in ("x", "y", "width", "height")]
                x, y, w, h = result["bbox"]
                assert box == pytest.approx([x / 0.64, y / 0.48, w / 0.64, h / 0.48])
            else:
                mask = mask_tools.decode(result["segmentation"])
                assert (unpacked(region["value"]["rle"]).reshape(48, 64, 4)[..., 3] == mask * 255).all()
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="Label Studio's own check of tasks")
    interface = sdk.LabelInterface(Path("out/label_studio.xml").read_text())
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})  # with predictions it fails in itself (2.1)
        for prediction in task["predictions"]:
            assert not interface.validate_prediction(prediction, return_errors=True)


def call_has_masks(wanted: dict[str, list[dict]]) -> bool:
    return any("segmentation" in result for results in wanted.values() for result in results)


def unpacked(rle: list[int]) -> np.ndarray:
    """As the front end reads it, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeats, count = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * count if repeats else [take(word) for _ in range(count)]
    return np.array(values, np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 260)])
def test_brushes_are_those_of_label_studio(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for mask in (np.zeros(shape, bool), np.ones(shape, bool), rng.random(shape) < 0.5):
        assert (unpacked(brush(mask)).reshape(*shape, 4) == mask[..., None] * 255).all()
    brushes = pytest.importorskip("label_studio_sdk.converter.brush", reason="Label Studio's own reader")
    found = brushes.decode_rle(brush(mask)).reshape(*shape, 4)
    assert (found[..., 3] == mask * 255).all()


def test_runs_of_a_mask() -> None:
    assert runs(np.array([[0, 0, 1], [1, 1, 0]], bool)) == [2, 3, 1]
    assert runs(np.array([[1, 0]], bool)) == [0, 1, 1]


@pytest.mark.parametrize("form", ["cvat", "label-studio"])
def test_a_video_is_refused(call: list[str], photos: Path, capsys, form: str) -> None:
    (photos / "film.mp4").write_bytes(b"")
    assert main([*call, "--format", form, "--output", "out", "photos"]) == 1
    assert f"film.mp4 is a video, and --format {form} is for images" in capsys.readouterr().err


def result(masks: bool = True) -> Result:
    columns = {
        "boxes": np.array([[10.2, 4.6, 30, 20], [0, 0, 64, 48]], np.float32),
        "scores": np.array([0.75, 0.5], np.float32),
        "classes": np.array([2, 0]),
    }
    if masks:
        columns["masks"] = np.zeros((2, 48, 64), bool)
        columns["masks"][0, 6:19, 12:28] = True
    return Result(columns, class_names=NAMES)


def test_fiftyone() -> None:
    pytest.importorskip("fiftyone", reason="to_fiftyone()")
    found = result().to_fiftyone().detections
    assert [one.label for one in found] == ['say "c"', "a & <b>"] and found[0].confidence == 0.75
    assert found[0].bounding_box == pytest.approx([10.2 / 64, 4.6 / 48, 19.8 / 64, 15.4 / 48])
    # The window of the box, rounded: its corner is (10, 5).
    assert found[0].mask.shape == (15, 20) and found[0].mask[1:14, 2:18].all() and found[0].mask.sum() == 13 * 16
    assert result(masks=False).to_fiftyone(size=(48, 64)).detections[1].bounding_box == [0, 0, 1, 1]


def test_fiftyone_is_named_and_sizes_are_known(call: list[str], photos: Path, monkeypatch) -> None:
    assert Predictor(call[2])("photos/a b.jpg")[:2].image_size == (48, 64)
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ConfigError, match="needs the package fiftyone"):
        result().to_fiftyone()
