"""Scores of best F1 against a search over all scores, each with a matching of its own by pycocotools."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction

import numpy as np
import pytest
from coco_samples import Dataset, random_content, random_outputs, write
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_coco_protocol import SIDE, drawn, ours

from se_det.evaluation import CocoEvaluator
from se_det.evaluation.best_f1 import as_metadata, best_f1
from se_det.evaluation.coco_protocol import Outcomes

IMAGES, CLASSES = 12, 4


def searched(truth: list[dict], found: list[dict], category: int) -> tuple[Fraction, float, int, int, int] | None:
    """The best F1 and its score, of equal ones the highest, with right, counted and annotated."""
    best = None
    for score in sorted({d["score"] for d in found if d["category_id"] == category}, reverse=True):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, IMAGES + 1)],
                "categories": [{"id": i, "name": str(i)} for i in range(1, CLASSES + 1)],
                "annotations": [dict(a) for a in truth],
            }
            coco.createIndex()
            kept = [{k: d[k] for k in d if k != "segmentation"} for d in found if d["score"] >= score]
            protocol = COCOeval(coco, coco.loadRes(kept), "bbox")
            protocol.params.iouThrs, protocol.params.catIds = np.array([0.5]), [category]
            protocol.params.areaRng, protocol.params.areaRngLbl = protocol.params.areaRng[:1], ["all"]
            protocol.params.maxDets = [100]
            protocol.evaluate()
        right = counted = objects = 0
        for image in filter(None, protocol.evalImgs):
            counts = ~image["dtIgnore"][0].astype(bool)
            right += int((counts & (image["dtMatches"][0] > 0)).sum())
            counted += int(counts.sum())
            objects += int((~image["gtIgnore"].astype(bool)).sum())
        if objects and right and (best is None or Fraction(2 * right, counted + objects) > best[0]):
            best = Fraction(2 * right, counted + objects), score, right, counted, objects
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_best_score_is_that_of_a_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = drawn(rng, images=IMAGES, classes=CLASSES - 1, objects=6, detections=40 if seed else 300)
    found.append({**found[0], "category_id": CLASSES})  # of a class that is annotated nowhere
    points = best_f1(ours(truth, found, "bbox", images=IMAGES, classes=CLASSES).outcomes)
    expected = [searched(truth, found, category) for category in range(1, CLASSES + 1)]
    assert points[-1] is expected[-1] is None and sum(e is not None for e in expected) == CLASSES - 1
    for point, best in zip(points[:-1], expected):
        f1, score, right, counted, objects = best
        assert (point.score, point.f1) == (score, float(f1))
        assert (point.precision, point.recall) == (right / counted, right / objects)


def test_of_equal_f1_the_higher_score_is_taken() -> None:
    # Down the scores, where 0.8 lies in a crowd and two of 0.6 pass together, F1 is 2/4, 2/4, 4/6, 4/7, 4/8, 6/9.
    score = np.array([0.9, 0.8, 0.6, 0.6, 0.5, 0.4, 0.3])
    right = np.array([True, False, False, True, False, False, True])
    outcomes = Outcomes(np.zeros(7, np.int64), score, right, np.ones(7, bool), np.array([3, 0]))
    outcomes.counted[1] = False
    first, second = best_f1(outcomes)
    assert (first.score, first.f1, first.precision, first.recall) == (0.6, 4 / 6, 2 / 3, 2 / 3) and second is None
    nothing = best_f1(Outcomes(np.zeros(7, np.int64), score, ~np.ones(7, bool), np.ones(7, bool), np.array([3])))
    assert nothing == [None]
    assert as_metadata(["a", "b"], [first, None]) == {
        "thresholds": {"a": 0.6, "b": None},
        "threshold_metrics": {"a": {"f1": 4 / 6, "precision": 2 / 3, "recall": 2 / 3}, "b": None},
    }


def test_an_evaluation_has_them_of_boxes(tmp_path) -> None:
    content = random_content()
    dataset = Dataset(write(tmp_path / "a.json", content))
    evaluators = [CocoEvaluator(dataset, tasks) for tasks in (("bbox", "segm"), ("bbox",))]
    for evaluator in evaluators:
        evaluator.process(*random_outputs(content))
        evaluator.evaluate()
    both, boxes = (evaluator.outcome.thresholds for evaluator in evaluators)
    assert both == boxes and len(both) == 3 and all(0 < point.f1 <= 1 for point in both)
