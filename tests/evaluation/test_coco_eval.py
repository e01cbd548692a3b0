"""The evaluator against the published numbers, and against pycocotools."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import coco_samples
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_tools

from se_det.errors import ConfigError, DataError
from se_det.evaluation import CocoEvaluator, GroundTruth, coco_metrics
from se_det.evaluation.coco_metrics import SUMMARY

# Published with the COCO API for its fake detections on 100 images of val2014, in full precision.
REPORTED_COSTS = {
    "bbox": (
        0.5045806987249628, 0.6969727247299577, 0.5729816669904824,
        0.5856257209410443, 0.5193996948036719, 0.5013978986347466,
        0.38681277964578054, 0.5936795762842003, 0.595352982877607,
        0.6398109626113442, 0.5664205978994309, 0.5642905982905982,
    ),
    "segm": (
        0.3195452758576433, 0.5622883972521636, 0.29892653412086784,
        0.3873740315997838, 0.31018272403369485, 0.3269339071005138,
        0.2682297225711534, 0.41544868114906375, 0.4168394992198818,
        0.4694498622754236, 0.37675922666197265, 0.3814715099715099,
    ),
}  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_published_numbers(shared_data: Path, task: str) -> None:
    folder = shared_data / "cocoapi"
    dataset = coco_samples.Dataset(folder / "instances_val2014_100.json")
    results = json.loads((folder / f"instances_val2014_fake{task}100_results.json").read_text())
    metrics = coco_metrics(_truth(dataset, masks=task == "segm"), results, task)
    assert [metrics[name] / 100 for name in SUMMARY] == pytest.approx(REPORTED_COSTS[task], abs=1e-12, rel=0)
    _, per_class = coco_samples.pycocotools_says(dataset.json_path, results, task)
    assert len(per_class) == 80
    _assert_classes_equal(metrics, per_class)


@pytest.mark.shared_data
def test_published_numbers_through_the_evaluator(shared_data: Path, tmp_path: Path) -> None:
    """The way of a run: tensors in, files out. Masks and boxes are of two result files, so each has its evaluator."""
    folder = shared_data / "cocoapi"
    dataset = coco_samples.Dataset(folder / "instances_val2014_100.json")
    for task, tasks in (("bbox", ("bbox",)), ("segm", ("bbox", "segm"))):
        results = json.loads((folder / f"instances_val2014_fake{task}100_results.json").read_text())
        evaluator = CocoEvaluator(dataset, tasks, tmp_path / task)
        samples, outputs = _as_outputs(dataset, results)
        evaluator.process(samples[:60], outputs[:60])
        evaluator.process(samples[60:], outputs[60:])
        metrics = evaluator.evaluate()
        assert [metrics[task][name] / 100 for name in SUMMARY] == pytest.approx(REPORTED_COSTS[task], abs=1e-12, rel=0)
        written = json.loads((tmp_path / task / "inference" / "metrics.json").read_text())
        assert written[task]["AP"] == metrics[task]["AP"]
        saved = json.loads((tmp_path / task / "inference" / "coco_instances_results.json").read_text())
        ours = sorted((r["image_id"], r["category_id"], r["score"]) for r in saved)
        assert ours == sorted((r["image_id"], r["category_id"], r["score"]) for r in results)
        if task == "segm":
            assert {str(r["segmentation"]) for r in saved} == {str(r["segmentation"]) for r in results}


@pytest.mark.parametrize("seed", [0, 3])
def test_equals_pycocotools(tmp_path: Path, seed: int) -> None:
    """Sparse ids, crowds as uncompressed RLE, equal scores over images, images without truth or detections."""
    content = coco_samples.random_content(seed=seed)
    path = coco_samples.write(tmp_path / "truth.json", content)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"), tmp_path)
    evaluator.process(*coco_samples.random_outputs(content, seed=seed + 1))
    metrics = evaluator.evaluate()
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert {r["category_id"] for r in results} == {3, 7, 90}
    assert list(metrics) == ["bbox", "segm"]
    for task in metrics:
        summary, per_class = coco_samples.pycocotools_says(path, results, task)
        assert 10 < summary[0] < 90
        assert [metrics[task][name] for name in SUMMARY] == pytest.approx(summary, abs=1e-10, rel=0, nan_ok=True)
        _assert_classes_equal(metrics[task], per_class)
    assert metrics["bbox"]["AP"] != metrics["segm"]["AP"]


def test_ids_of_any_kind(tmp_path: Path) -> None:
    """Text image ids that are equal as numbers, and annotations counted from 0, change nothing."""
    content = coco_samples.random_content()
    plain = _metrics(tmp_path, content)
    for annotation in content["annotations"]:
        annotation["id"] -= 1
        annotation["image_id"] = _text_id(annotation["image_id"])
    for image in content["images"]:
        image["id"] = _text_id(image["id"])
    assert len({int(image["id"]) for image in content["images"]}) < len(content["images"])
    assert _metrics(tmp_path, content) == plain
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert {r["image_id"] for r in results} <= {image["id"] for image in content["images"]}


def test_missing_keys_are_filled_in(tmp_path: Path) -> None:
    """Without `iscrowd` and `area`, with the file itself left as it was."""
    content = coco_samples.random_content()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
        annotation["area"] = float(mask_tools.area(_rle(annotation["segmentation"])))
    plain = _metrics(tmp_path, content)
    for annotation in content["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    path = coco_samples.write(tmp_path / "truth.json", content)
    before = path.read_bytes()
    assert _metrics(tmp_path, content) == plain
    assert path.read_bytes() == before
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    truth = _truth(coco_samples.Dataset(coco_samples.write(path, content)), masks=False)
    for ours, given in zip(truth.annotations, content["annotations"], strict=True):
        assert ours["area"] == given["bbox"][2] * given["bbox"][3]


def test_no_detections_are_zeros(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = coco_samples.random_content()
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 7 and a["area"] > 32**2]
    path = coco_samples.write(tmp_path / "truth.json", content)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"), tmp_path)
    with caplog.at_level(logging.WARNING):
        metrics = evaluator.evaluate()
    assert "12 of 12 images were not given" in caplog.text
    assert "found nothing in 12 images" in caplog.text
    for task in ("bbox", "segm"):
        assert metrics[task]["AP"] == metrics[task]["AP50"] == metrics[task]["AP-star"] == 0
        assert math.isnan(metrics[task]["APs"]) and math.isnan(metrics[task]["AP-cross"])
    text = (tmp_path / "inference" / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["segm"]["APs"] is None
    assert json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text()) == []


def test_reset_and_repeated_images(tmp_path: Path) -> None:
    """An image given twice counts once; `reset` starts anew; the ground truth survives an evaluation."""
    content = coco_samples.random_content()
    path = coco_samples.write(tmp_path / "truth.json", content)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"))
    samples, outputs = coco_samples.random_outputs(content)
    evaluator.process(samples, outputs)
    first = evaluator.evaluate()
    evaluator.process(samples[::-1], outputs)  # other outputs for the same images
    assert _same(evaluator.evaluate(), first)
    evaluator.reset()
    assert evaluator.evaluate()["bbox"]["AP"] == 0
    evaluator.process(samples, outputs)
    assert _same(evaluator.evaluate(), first)


def test_classes_that_share_a_name(tmp_path: Path) -> None:
    content = coco_samples.random_content()
    content["categories"] = [{**category, "name": "thing"} for category in content["categories"]]
    metrics = _metrics(tmp_path, content)["bbox"]
    assert [name for name in metrics if name.startswith("AP-")] == ["AP-thing (3)", "AP-thing (7)", "AP-thing (90)"]


def test_boxes_keep_their_precision(tmp_path: Path) -> None:
    """Half-precision boxes are subtracted in float32; non-finite detections are left out with a warning."""
    content = coco_samples.random_content()
    path = coco_samples.write(tmp_path / "truth.json", content)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox",), tmp_path)
    boxes = torch.tensor([[1.0, 2.0, 2050.0, 30.0], [1, 2, 30, math.inf], [1, 2, 3, 4]], dtype=torch.float16)
    found = {
        "pred_boxes": boxes,
        "scores": torch.tensor([0.5, 0.5, math.nan]),
        "pred_classes": torch.tensor([2, 0, 0]),
    }
    evaluator.process([{"image_id": 5}], [{"instances": found}])
    evaluator.evaluate()
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert results == [{"image_id": 5, "category_id": 90, "bbox": [1.0, 2.0, 2049.0, 28.0], "score": 0.5}]


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    content = coco_samples.random_content()
    path = tmp_path / "truth.json"

    def evaluator(tasks: tuple[str, ...] = ("bbox",)) -> CocoEvaluator:
        return CocoEvaluator(coco_samples.Dataset(coco_samples.write(path, content)), tasks)

    found = {"pred_boxes": torch.ones(1, 4), "scores": torch.ones(1), "pred_classes": torch.tensor([3])}
    with pytest.raises(ConfigError, match="poses"):
        evaluator(("bbox", "poses"))
    with pytest.raises(DataError, match=r"Image 77 is not in .*truth\.json"):
        evaluator().process([{"image_id": 77}], [{"instances": found}])
    with pytest.raises(ConfigError, match=r"class 3 in image 5.*NUM_CLASSES to 3"):
        evaluator().process([{"image_id": 5}], [{"instances": found}])
    with pytest.raises(ConfigError, match="MASK_ON True"):
        evaluator(("bbox", "segm")).process([{"image_id": 5}], [{"instances": found}])
    content["annotations"][0]["area"] = "12"
    with pytest.raises(DataError, match="annotation 1 has area '12'"):
        evaluator()
    del content["annotations"][0]["area"]
    content["annotations"][0]["segmentation"] = {"size": [10, 20], "counts": [200]}
    with pytest.raises(DataError, match=r"annotation 1 has an RLE of size \[10, 20\].*\[120, 160\]"):
        evaluator(("bbox", "segm"))
    content["annotations"][0]["segmentation"] = []
    evaluator(("bbox", "segm"))  # of the others
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    with pytest.raises(DataError, match=r"none of its \d+ annotations has a segmentation.*MASK_ON False"):
        evaluator(("bbox", "segm"))


def _truth(dataset: coco_samples.Dataset, *, masks: bool) -> GroundTruth:
    return GroundTruth(
        dataset.json_path,
        image_ids=[dataset.image(index).id for index in range(len(dataset))],
        category_ids=dataset.category_ids,
        category_names=dataset.category_names,
        masks=masks,
    )


def _metrics(folder: Path, content: dict) -> dict[str, dict[str, float]]:
    """The metrics of the random outputs, as JSON has them, for comparing with ==."""
    path = coco_samples.write(folder / "truth.json", content)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"), folder)
    evaluator.process(*coco_samples.random_outputs(content))
    evaluator.evaluate()
    return json.loads((folder / "inference" / "metrics.json").read_text())


def _as_outputs(dataset: coco_samples.Dataset, results: list[dict]) -> tuple[list[dict], list[dict]]:
    """COCO results as a detector's outputs, in float64 because the file's decimals decide matches at a threshold."""
    samples, outputs = [], []
    for image in map(dataset.image, range(len(dataset))):
        mine = [r for r in results if r["image_id"] == image.id]
        xywh = torch.tensor([r.get("bbox", (0, 0, 1, 1)) for r in mine], dtype=torch.float64).reshape(-1, 4)
        masks = [mask_tools.decode(r["segmentation"]) for r in mine if "segmentation" in r]
        instances = {
            "pred_boxes": torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1),
            "scores": torch.tensor([r["score"] for r in mine], dtype=torch.float64),
            "pred_classes": torch.tensor([dataset.category_ids.index(r["category_id"]) for r in mine]),
            "pred_masks": torch.tensor(np.array(masks).reshape(-1, image.height, image.width), dtype=torch.bool),
        }
        samples.append({"image_id": image.id, "height": image.height, "width": image.width})
        outputs.append({"instances": instances})
    return samples, outputs


def _rle(segmentation: list | dict) -> dict:
    if isinstance(segmentation, list):
        return coco_samples.rle_of(segmentation)
    return mask_tools.frPyObjects(segmentation, *segmentation["size"])


def _text_id(number: int) -> str:
    """Sorts as the number does; those of 11 and 12, "011" and "11", are equal as numbers."""
    return f"{number:03d}" if number < 12 else "11"


def _assert_classes_equal(metrics: dict[str, float], per_class: dict[str, float]) -> None:
    ours = {name.removeprefix("AP-"): value for name, value in metrics.items() if name.startswith("AP-")}
    assert ours == pytest.approx(per_class, abs=1e-10, rel=0, nan_ok=True)


def _same(left: dict, right: dict) -> bool:
    return json.dumps(left) == json.dumps(right)
