"""Every number that the protocol accumulates against pycocotools' own, to the last bit."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from se_det.evaluation import overlaps
from se_det.evaluation.coco_protocol import Accumulated, accumulate
from se_det.evaluation.overlaps import Entries, mask_areas

SIDE = 150
Boxes = list[dict[str, Any]]


def drawn(rng: np.random.Generator, *, images: int, classes: int, objects: int, detections: int) -> tuple[Boxes, Boxes]:
    """Ground truth and results that are hard on the rules: boxes on a coarse grid overlap equally, scores are equal,
    crowds and areas that are not the box's are many, and some cells hold more than 100 detections."""

    def box() -> list[float]:
        x, y, w, h = rng.integers([0, 0, 1, 1], [10, 10, 6, 6]) * 10.0
        return [x, y, min(w, SIDE - x), min(h, SIDE - y)]

    def jittered(x: float, y: float, w: float, h: float) -> list[float]:
        x, y = np.clip([x, y] + rng.integers(-1, 2, 2) * 5.0, 0, SIDE - 10)
        return [x, y, min(w, SIDE - x), min(h, SIDE - y)]

    truth, found = [], []
    for image in range(1, images + 1):
        here = [(int(rng.integers(classes)) + 1, box()) for _ in range(rng.integers(objects + 1))]
        for category, xywh in here:
            crowd = int(rng.random() < 0.2)
            area = float(rng.choice([32**2, 96**2, 500, xywh[2] * xywh[3]]))
            truth.append({"image_id": image, "category_id": category, "bbox": xywh, "iscrowd": crowd, "area": area})
        for _ in range(rng.integers(detections + 1)):
            category, xywh = here[rng.integers(len(here))] if here and rng.random() < 0.7 else (1, box())
            score = float(rng.integers(1, 20)) / 20
            found.append({"image_id": image, "category_id": category, "bbox": jittered(*xywh), "score": score})
    for number, annotation in enumerate(truth, 1):
        annotation["id"] = number
    for entry in (*truth, *found):
        x, y, w, h = entry["bbox"]
        polygon = [x, y, x + w, y, x + w, y + h, x + w / 3, y + h / 2]
        entry["segmentation"] = mask_tools.merge(mask_tools.frPyObjects([polygon], SIDE, SIDE))
    return truth, found


def theirs(truth: Boxes, found: Boxes, task: str, *, images: int, classes: int) -> dict[str, np.ndarray]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
            "categories": [{"id": i, "name": str(i)} for i in range(1, classes + 1)],
            "annotations": [dict(annotation) for annotation in truth],
        }
        coco.createIndex()
        unused = {"bbox": "segmentation", "segm": "bbox"}[task]
        results = coco.loadRes([{key: entry[key] for key in entry if key != unused} for entry in found])
        protocol = COCOeval(coco, results, task)
        protocol.evaluate()
        protocol.accumulate()
    return protocol.eval


def ours(truth: Boxes, found: Boxes, task: str, *, images: int, classes: int) -> Accumulated:
    def entries(items: Boxes, area: np.ndarray) -> Entries:
        cell = np.array([(i["category_id"] - 1) * images + i["image_id"] - 1 for i in items], np.int64)
        boxes = np.array([i["bbox"] for i in items], np.float64).reshape(-1, 4)
        return Entries(cell, area, boxes if task == "bbox" else [i["segmentation"] for i in items])

    areas = np.array([i["bbox"][2] * i["bbox"][3] for i in found], np.float64)
    if task == "segm":
        areas = mask_areas([i["segmentation"] for i in found])
    return accumulate(
        entries(truth, np.array([a["area"] for a in truth], np.float64)),
        np.array([a["iscrowd"] for a in truth], bool),
        entries(found, areas),
        np.array([i["score"] for i in found], np.float64),
        images=images,
        classes=classes,
    )


@pytest.mark.parametrize("pairs_at_once", [2**20, 7])
@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize(
    "counts",
    [
        {"images": 40, "classes": 3, "objects": 6, "detections": 12},
        {"images": 3, "classes": 1, "objects": 40, "detections": 350},
        {"images": 40, "classes": 6, "objects": 1, "detections": 4},
    ],
)
def test_all_numbers_are_pycocotools(
    monkeypatch: pytest.MonkeyPatch, counts: dict[str, int], task: str, pairs_at_once: int
) -> None:
    monkeypatch.setattr(overlaps, "PAIRS_AT_ONCE", pairs_at_once)
    for seed in range(4):
        truth, found = drawn(np.random.default_rng(seed), **counts)
        of = {"images": counts["images"], "classes": counts["classes"]}
        expected, accumulated = theirs(truth, found, task, **of), ours(truth, found, task, **of)
        assert (expected["recall"] > 0).any()
        np.testing.assert_array_equal(accumulated.recall, expected["recall"])
        np.testing.assert_array_equal(accumulated.precision, expected["precision"][..., -1])


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_without_detections_or_objects(task: str) -> None:
    truth, found = drawn(np.random.default_rng(0), images=5, classes=2, objects=4, detections=8)
    nothing = ours(truth, [], task, images=5, classes=2)
    assert set(np.unique(nothing.precision)) <= {-1, 0} and nothing.recall.max() == 0
    assert (ours([], found, task, images=5, classes=2).precision == -1).all()
