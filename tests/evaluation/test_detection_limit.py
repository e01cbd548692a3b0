"""How many detections of an image count: COCO's 100, or another number; and saying what that leaves out."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from se_det.data import read_coco
from se_det.errors import ConfigError
from se_det.evaluation import CocoEvaluator
from se_det.evaluation.coco_eval import detection_limit_warnings
from se_det.evaluation.coco_metrics import summary_names

OBJECTS = 150


@pytest.fixture
def crowded(tmp_path: Path):
    """An image of 150 objects of one class in a grid, 10 of another, and 2 crowds."""
    boxes = [[20 * (i % 15), 20 * (i // 15), 12, 12] for i in range(OBJECTS + 10)]
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1 + (i >= OBJECTS), "bbox": box, "area": 144, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    for i in (0, 1):
        annotations.append({**annotations[i], "id": 1000 + i, "iscrowd": 1, "bbox": [0, 230, 5, 5]})
    (tmp_path / "1.png").touch()
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 320, "height": 240}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    xywh = torch.tensor(boxes, dtype=torch.float32)
    found = {
        "pred_boxes": torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
        "scores": torch.linspace(0.9, 0.1, len(boxes)),
        "pred_classes": torch.tensor([int(i >= OBJECTS) for i in range(len(boxes))]),
    }
    return read_coco(tmp_path / "truth.json", tmp_path), found


@pytest.mark.parametrize("limit", [100, 120, 300])
def test_the_limit_is_pycocotools_maxdets(crowded, tmp_path: Path, limit: int) -> None:
    dataset, found = crowded
    evaluator = CocoEvaluator(dataset, output_folder=tmp_path / "out", max_dets_per_image=limit)
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    metrics = evaluator.evaluate()["bbox"]
    assert [name for name in metrics if not name.startswith("AP-")] == list(summary_names(limit))
    # Recall reaches limit / 150: so many of the 101 recall levels have a precision of 1.
    reached = np.floor(min(limit / OBJECTS, 1) * 100 + 1e-9) + 1
    assert metrics["AP-a"] == pytest.approx(100 * reached / 101)
    assert metrics["AP-b"] == pytest.approx(100) and metrics[f"AR{limit}"] == pytest.approx(
        50 * (min(limit / OBJECTS, 1) + 1)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(dataset.json_path))
        protocol = COCOeval(truth, truth.loadRes(str(tmp_path / "out/inference/coco_instances_results.json")), "bbox")
        protocol.params.maxDets = [1, 10, limit]
        protocol.evaluate()
        protocol.accumulate()
    precision, recall = protocol.eval["precision"], protocol.eval["recall"]
    assert metrics["AP"] == pytest.approx(100 * precision[:, :, :, 0, 2].mean(), abs=1e-10)
    assert metrics[f"AR{limit}"] == pytest.approx(100 * recall[:, :, 0, 2].mean(), abs=1e-10)
    assert metrics["AR10"] == pytest.approx(100 * recall[:, :, 0, 1].mean(), abs=1e-10)


def test_a_limit_below_the_other_numbers_is_refused(crowded) -> None:
    with pytest.raises(ConfigError, match=r"TEST.MAX_DETS_PER_IMAGE must be above 10.* got 10"):
        CocoEvaluator(crowded[0], max_dets_per_image=10)


@pytest.mark.parametrize("detections, limit, told", [
    (100, 100, ["has 160 objects, of which TEST.DETECTIONS_PER_IMAGE 100 are found", "150 objects of a class, and AP"]),
    (300, 100, ["TEST.DETECTIONS_PER_IMAGE is 300, and AP looks at 100", "150 objects of a class, and AP"]),
    (300, 300, []),
])  # fmt: skip
def test_what_the_limits_leave_out_is_told(crowded, detections: int, limit: int, told: list[str]) -> None:
    found = detection_limit_warnings(crowded[0], detections, limit)
    assert len(found) == len(told) and all(part in sentence for part, sentence in zip(told, found))


def test_objects_of_a_subset_are_counted(crowded) -> None:
    dataset = crowded[0]
    assert dataset.max_objects_per_image() == 160 and dataset.max_objects_per_image(of_class=True) == 150
    assert dataset.subset([]).max_objects_per_image() == 0
