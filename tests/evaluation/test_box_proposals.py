"""The recall of proposals: a case by hand, and Detectron2's where it is installed."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from se_det.errors import DataError
from se_det.evaluation.box_proposals import AREAS, LIMITS, BoxProposalEvaluator, covered

# A small, a medium and a large object; the second image has a crowd besides, which does not count.
TRUTH = {
    1: [[0, 0, 20, 20], [100, 100, 150, 160]],
    2: [[0, 0, 200, 200]],
}


class Dataset:
    """Annotations as a `CocoDataset` has them."""

    json_path = "truth.json"

    def __init__(self, truth: dict[int, list[list[float]]]) -> None:
        self._truth = [(key, np.array(boxes, dtype=np.float64).reshape(-1, 4)) for key, boxes in truth.items()]

    def __len__(self) -> int:
        return len(self._truth)

    def image(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(id=self._truth[index][0])

    def annotations(self, index: int, *, crowds: bool, masks: bool) -> SimpleNamespace:
        assert not crowds and not masks
        boxes = self._truth[index][1]
        return SimpleNamespace(boxes=boxes, areas=(boxes[:, 2:] - boxes[:, :2]).prod(1))


def proposals(boxes: list[list[float]], logits: list[float]) -> dict:
    return {"proposals": {"proposal_boxes": torch.tensor(boxes).float().view(-1, 4),
                          "objectness_logits": torch.tensor(logits).float()}}  # fmt: skip


def test_recalls_of_a_case_by_hand():
    evaluator = BoxProposalEvaluator(Dataset(TRUTH))
    # The small object exactly; the medium one with IoU 0.72 (36 of 50 px), which is above 5 of 10 thresholds, but only
    # by the 101st; the large one by nothing.
    far = [[500.0, 500, 510, 510]] * 99
    evaluator.process(
        [{"image_id": 1}, {"image_id": 2}],
        [proposals([[100, 100, 136, 160], *far, [0, 0, 20, 20]], [-5.0, *[1.0] * 99, 9.0]), proposals([], [])],
    )
    found = evaluator.evaluate()["box_proposals"]
    assert set(evaluator.metrics) == {f"box_proposals/{name}" for name in found}
    assert found["ARs@100"] == 100 and found["ARm@100"] == 0 and found["ARm@1000"] == pytest.approx(50)
    assert (
        found["ARl@1000"] == 0 and found["AR@1000"] == pytest.approx(50) and found["AR@100"] == pytest.approx(100 / 3)
    )
    with pytest.raises(DataError, match="Image 7 is not in truth.json"):
        evaluator.process([{"image_id": 7}], [proposals([], [])])


def test_each_object_takes_a_proposal_of_its_own():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert covered(boxes, torch.tensor([[0.0, 0, 10, 10]])).tolist() == [1, 0]
    assert covered(boxes, torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])).tolist() == pytest.approx([1, 80 / 90])


def test_without_objects_of_a_size_the_recall_is_no_number():
    evaluator = BoxProposalEvaluator(Dataset({1: [[0, 0, 20, 20]]}))
    evaluator.process([{"image_id": 1}], [proposals([[0, 0, 20, 20]], [1.0])])
    found = evaluator.evaluate()["box_proposals"]
    assert found["AR@100"] == 100 and math.isnan(found["ARl@100"])


@pytest.mark.detectron2
@pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="needs Detectron2")
def test_recalls_are_detectron2s():
    from detectron2.evaluation.coco_evaluation import _evaluate_box_proposals
    from detectron2.structures import Boxes, Instances

    random = np.random.RandomState(0)
    corner, sides = random.uniform(0, 400, (12, 5, 2)), random.uniform(8, 250, (12, 5, 2))
    truth = {i: np.concatenate([c, c + s], 1).tolist() for i, (c, s) in enumerate(zip(corner, sides))}
    evaluator, theirs = BoxProposalEvaluator(Dataset(truth)), []
    for i, boxes in truth.items():
        near = np.repeat(boxes, 60, 0) + random.normal(0, 12, (300, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        logits = random.permutation(300).astype(float)
        evaluator.process([{"image_id": i}], [proposals(near.tolist(), logits.tolist())])
        found = Instances((700, 700))
        found.proposal_boxes, found.objectness_logits = Boxes(torch.tensor(near).float()), torch.tensor(logits)
        theirs.append({"image_id": i, "proposals": found})
    xywh = {i: [[a, b, c - a, d - b] for a, b, c, d in boxes] for i, boxes in truth.items()}
    coco = SimpleNamespace(
        getAnnIds=lambda imgIds: [(imgIds, k) for k in range(5)],
        loadAnns=lambda ids: [
            {"bbox": xywh[i][k], "iscrowd": 0, "area": xywh[i][k][2] * xywh[i][k][3]} for i, k in ids
        ],
    )
    ours = evaluator.evaluate()["box_proposals"]
    for limit in LIMITS:
        for suffix, name in zip(AREAS, ("all", "small", "medium", "large")):
            expected = 100 * float(_evaluate_box_proposals(theirs, coco, area=name, limit=limit)["ar"])
            assert 5 < expected < 95 and ours[f"AR{suffix}@{limit}"] == pytest.approx(expected, abs=1e-4)
