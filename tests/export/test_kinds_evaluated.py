"""Files of each kind in a checkpoint's place: the same numbers from `--eval-only`, the same findings from `predict`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from se_det.cli.export import _detector
from se_det.cli.main import main
from se_det.data.pixel_labels import read_panoptic_png
from se_det.inference import Predictor
from se_det.inference.runtimes import RUNTIMES

from .batches import picture
from .houses import ENDINGS, NAMES, PIXELS, POINTS, SKELETON, House
from .test_detectors import GraphRuntime
from .tiny import KINDS

SIZES = [(96, 128), (70, 90), (64, 64)]
STAND_IN = ".graph"


def write_data(folder: Path, found: Predictor) -> list[str]:
    """Images, whose ground truth is what a checkpoint finds, moved a little; as config keys."""
    points = {"keypoints": POINTS, "skeleton": SKELETON}
    content = {"images": [], "annotations": [],
               "categories": [{"id": 10 + k, "name": n, **points} for k, n in enumerate(NAMES)]}  # fmt: skip
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES):
        image, name = picture(height, width, number), f"{number}.png"
        cv2.imwrite(str(folder / "images" / name), image[:, :, ::-1])
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
    keys = ["DATASETS.VAL_JSON", str(folder / "v.json"), "DATASETS.VAL_IMAGES", str(folder / "images")]
    if found.cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        labels = ["DATASETS.VAL_SEM_SEG", str(folder / "labels"), "DATASETS.SEM_SEG_CLASSES", str(PIXELS)]
        return [*keys[2:], *labels]
    return keys


def write_panoptic_truth(folder: Path, drawn: Path) -> list[str]:
    """What `predict` has written, 3 px aside; as config keys."""
    (folder / "panoptic").mkdir()
    for png in (drawn / "panoptic").iterdir():
        cv2.imwrite(str(folder / "panoptic" / png.name), np.roll(cv2.imread(str(png)), 3, 1))
    content = json.loads((drawn / "panoptic.json").read_text())
    for entry in content["annotations"]:
        numbers = read_panoptic_png(folder / "panoptic" / entry["file_name"])
        for segment in entry["segments_info"]:
            segment["area"] = int((numbers == segment["id"]).sum())
    (folder / "panoptic.json").write_text(json.dumps(content))
    return [
        "DATASETS.VAL_PANOPTIC_JSON",
        str(folder / "panoptic.json"),
        "DATASETS.VAL_PANOPTIC",
        str(folder / "panoptic"),
    ]


def evaluated(weights: Path, data: list[str], output: Path) -> dict[str, dict[str, float]]:
    """What `train --eval-only` gives."""
    words = [f"MODEL.WEIGHTS={weights}", "DATALOADER.NUM_WORKERS=0", "MODEL.DEVICE=cpu", *data]
    assert main(["train", "--eval-only", *words, "--output", str(output)]) == 0
    found: dict[str, dict[str, float]] = {}
    for file in (output / "inference").glob("*metrics.json"):
        found |= json.loads(file.read_text())
    return found


def assert_same_results(ours: list[dict], theirs: list[dict]) -> None:
    """Of COCO results by matching, as those of one score may change places."""
    assert len(ours) == len(theirs)
    for other in theirs:
        alike = [one for one in ours if all(one[k] == other[k] for k in ("file_name", "image_id", "category_id"))]
        near = [np.abs(np.subtract(one["bbox"], other["bbox"])).max() for one in alike]
        one = alike[int(np.argmin(near))]
        assert one.keys() == other.keys() and min(near) < 2e-2 and abs(one["score"] - other["score"]) < 1e-4
        if "keypoints" in other:
            np.testing.assert_allclose(one["keypoints"], other["keypoints"], rtol=0, atol=1e-2)
        if "segmentation" in other:
            masks = [found["segmentation"] for found in (one, other)]
            union, both = (coco_mask.area(coco_mask.merge(masks, intersect=inside)) for inside in (False, True))
            assert union - both <= max(1, union / 1000)


def assert_same_pixels(ours: Path, theirs: Path) -> None:
    """Of PNGs and JSON that are written where pixels have classes."""
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for png in (*theirs.glob("sem_seg/*"), *theirs.glob("panoptic/*")):
        one, other = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (ours / png.relative_to(theirs), png))
        assert one.shape == other.shape and (one != other).mean() < 1e-3
    if (theirs / "panoptic.json").exists():
        one, other = (json.loads((folder / "panoptic.json").read_text()) for folder in (ours, theirs))
        assert one["images"] == other["images"] and one["categories"] == other["categories"]
        for segments, known in zip(one["annotations"], other["annotations"], strict=True):
            kinds = [[(s["id"], s["category_id"]) for s in found["segments_info"]] for found in (segments, known)]
            assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("panoptic", STAND_IN),
        *(pytest.param(kind, ending, marks=pytest.mark.slow) for kind in KINDS for ending in ENDINGS),
    ],
)
def test_a_file_in_a_checkpoints_place(
    house_of: Callable[[str], House], kind: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    house = house_of(kind)
    if ending == STAND_IN:  # the network itself, as if a file ran it: no export
        args = {"config_file": None, "part": "detector", "no_preprocessing": False, "overrides": []}
        network = _detector(argparse.Namespace(weights=str(house.weights), **args))
        monkeypatch.setitem(RUNTIMES._obj_map, STAND_IN, lambda path, device: GraphRuntime(network))
        (file := tmp_path / "x.graph").touch()
    else:
        file = house.file(ending)
    checkpoint, exported = Predictor(house.weights), Predictor(file)
    for name in ("class_names", "category_ids", "pixel_class_names", "pixel_category_ids", "keypoint_names",
                 "skeleton"):  # fmt: skip
        assert getattr(exported, name) == getattr(checkpoint, name), name
    data = write_data(tmp_path / "data", checkpoint)
    drawn = [tmp_path / f"drawn{weights.suffix}" for weights in (file, house.weights)]
    for weights, output in zip((file, house.weights), drawn):
        words = ["--weights", str(weights), str(tmp_path / "data" / "images"), "MODEL.DEVICE=cpu"]
        assert main(["predict", *words, "--output", str(output)]) == 0
    assert_same_results(*(json.loads((folder / "detections.json").read_text()) for folder in drawn))
    assert_same_pixels(*drawn)
    if kind == "panoptic":
        data += write_panoptic_truth(tmp_path / "data", drawn[1])
    metrics, known = (evaluated(w, data, tmp_path / f"of{w.suffix}") for w in (file, house.weights))
    assert metrics.keys() == known.keys() and (kind != "panoptic" or "panoptic_seg" in known)
    for task, values in known.items():
        assert any(0 < value < 100 for value in values.values() if value is not None), task
        for name, value in values.items():
            assert value == metrics[task][name] or abs(metrics[task][name] - value) < 0.01, (task, name)
    if kind == "semantic":
        capsys.readouterr()
        words = [f"MODEL.WEIGHTS={file}", "MODEL.DEVICE=cpu", *data[:-1], str(["other", *PIXELS[1:]])]
        assert main(["train", "--eval-only", *words, "--output", str(tmp_path / "other")]) == 1
        said = capsys.readouterr().err
        assert "exported with the classes of pixels things, sky" in said and "the data has other" in said
