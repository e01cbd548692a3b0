"""Keypoint AP against pycocotools, and what of it cannot be."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from se_det.data import read_coco
from se_det.errors import ConfigError
from se_det.evaluation.coco_eval import CocoEvaluator
from se_det.evaluation.coco_metrics import KEYPOINT_SUMMARY
from se_det.evaluation.oks import COCO_SIGMAS, default_sigmas


def scene(folder: Path, points: int, seed: int) -> tuple[Path, list[dict]]:
    """Ground truth with crowds, hidden and no keypoints and every size; detections near it, beside it and doubled."""
    random = np.random.RandomState(seed)
    annotations, results = [], []
    images = [{"id": 10 * i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(1, 13)]
    for image in images:
        for _ in range(random.randint(0, 30)):
            side = int(random.choice([15, 50, 90, 200]))
            x, y = random.uniform(0, 400), random.uniform(0, 250)
            seen = random.randint(0, 3, points) * (random.rand() > 0.2)
            xy = np.stack([x + side * random.rand(points), y + side * random.rand(points)], 1).round(1)
            values = np.concatenate([xy * (seen > 0)[:, None], seen[:, None]], 1)
            label = int(random.randint(1, 3))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": label, "bbox": [x, y, side, side],
                "area": float(0.6 * side * side), "iscrowd": int(random.rand() < 0.1),
                "keypoints": values.ravel().tolist(), "num_keypoints": int((seen > 0).sum()),
            })  # fmt: skip
            for _ in range(random.randint(0, 4)):
                near = xy + random.normal(0, side * random.choice([0.01, 0.05, 0.2]), xy.shape)
                found = np.concatenate([near, random.rand(points, 1)], 1)
                results.append({
                    "image_id": image["id"], "category_id": label if random.rand() > 0.1 else 3 - label,
                    "bbox": [x, y, side * 1.1, side], "score": round(random.rand(), 2),
                    "keypoints": found.ravel().tolist(),
                })  # fmt: skip
    categories = [{"id": i, "name": f"c{i}", "keypoints": [f"p{j}" for j in range(points)]} for i in (1, 2)]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path, results


def theirs(path: Path, results: list[dict], sigmas) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        run = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "keypoints")
        assert len(results) > 50
        run.params.kpt_oks_sigmas = np.array(sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.mark.parametrize(
    ("points", "sigmas", "seed"), [(17, (), 0), (17, (), 1), (3, (0.02, 0.1, 0.05), 2), (4, (), 3)]
)
def test_numbers_are_pycocotools(tmp_path, points, sigmas, seed):
    path, results = scene(tmp_path, points, seed)
    evaluator = CocoEvaluator(read_coco(path, tmp_path), ("bbox", "keypoints"), sigmas=sigmas)
    outcome = evaluator.score(results)
    run = theirs(path, results, sigmas or default_sigmas(points))
    np.testing.assert_array_equal(outcome.precision["keypoints"], run.eval["precision"][:, :, :, 0, 0])
    ours = [outcome.metrics["keypoints"][name] for name in KEYPOINT_SUMMARY]
    np.testing.assert_allclose(ours, 100 * run.stats, rtol=1e-12)
    assert 1 < ours[0] < 99 and {f"keypoints/{name}" for name in KEYPOINT_SUMMARY} <= set(evaluator.metrics)
    assert "APs" in outcome.metrics["bbox"] and "APs" not in outcome.metrics["keypoints"]


def test_default_sigmas_are_cocos_for_17_and_their_mean_for_others(tmp_path):
    assert default_sigmas(17) == COCO_SIGMAS == tuple(COCOeval(iouType="keypoints").params.kpt_oks_sigmas)
    assert default_sigmas(2) == (pytest.approx(np.mean(COCO_SIGMAS)),) * 2
    path, _ = scene(tmp_path, 3, 0)
    with pytest.raises(ConfigError, match=r"TEST.KEYPOINT_OKS_SIGMAS has 2 numbers .* declares 3 keypoints"):
        CocoEvaluator(read_coco(path, tmp_path), ("keypoints",), sigmas=(0.1, 0.2))
