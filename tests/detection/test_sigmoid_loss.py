"""A score for each class alone: the loss written out, the classes of the federated loss, and what inference makes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from se_det.detection.build import build_detector
from se_det.detection.sigmoid_loss import federated_classes, sigmoid_cross_entropy
from se_det.errors import ConfigError

from .conftest import small_config

SIGMOID = ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True)
FEDERATED = (*SIGMOID, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", 2)


def test_the_loss_written_out():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, 2, 2, 3])
    for kept in (None, torch.tensor([2, 3])):
        expected = 0.0
        for i, c in enumerate(classes.tolist()):
            for k in range(3):
                if kept is None or k in kept:
                    p = torch.sigmoid(logits[i, k])
                    expected -= torch.log(p if k == c else 1 - p) / 5
        torch.testing.assert_close(sigmoid_cross_entropy(logits, classes, kept), expected)


def test_federated_classes_are_those_present_and_others_by_their_weights():
    weights = torch.tensor([1.0, 1, 1, 30, 1, 1, 1, 90])
    classes = torch.tensor([1, 8, 1, 4, 8])
    torch.manual_seed(0)
    drawn = torch.zeros(9)
    for _ in range(2000):
        found = federated_classes(classes, weights, 4)  # 1, 4 and the background are there already
        assert found[:3].tolist() == [1, 4, 8] and len(found.unique()) == 4
        drawn[found[3:]] += 1
    others = torch.tensor([1.0, 0, 1, 30, 0, 1, 1, 90, 0])
    torch.testing.assert_close(drawn / 2000, others / others.sum(), atol=0.03, rtol=0)
    assert federated_classes(classes, weights, 3).tolist() == federated_classes(classes, weights, 1).tolist()


def test_only_classes_of_the_step_have_gradients():
    predictor = build_detector(small_config(overrides=FEDERATED)).roi_heads.box_predictor
    predictor.fed_loss_cls_weights.copy_(torch.tensor([1e-9, 1.0, 1e-9]))
    logits = torch.randn(4, 4, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 9, 9]] * 4)
    torch.manual_seed(0)
    losses = predictor.losses(logits, torch.zeros(4, 12), boxes, torch.tensor([2, 2, 2, 2]), boxes)
    losses["loss_cls"].backward()
    assert logits.grad.abs().sum(0).gt(0).tolist() == [False, True, True, False]
    expected = F.binary_cross_entropy_with_logits(logits[:, 1:3], torch.tensor([[0.0, 1.0]] * 4), reduction="sum") / 4
    torch.testing.assert_close(losses["loss_cls"], expected)


def test_scores_of_detections_are_each_classs_own():
    predictor = build_detector(small_config(overrides=SIGMOID)).roi_heads.box_predictor
    logits = torch.tensor([[2.0, 1.0, -9.0, 7.0]])
    boxes = torch.tensor([[10.0, 10, 30, 30]])
    [found] = predictor.detect(logits, torch.zeros(1, 12), [boxes], [(50, 50)])
    assert found["pred_classes"].tolist() == [0, 1]
    torch.testing.assert_close(found["scores"], torch.tensor([2.0, 1.0]).sigmoid())


def test_a_federated_loss_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"set MODEL\.ROI_BOX_HEAD\.USE_SIGMOID_CE True"):
        build_detector(small_config(overrides=("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True)))
    with pytest.raises(ConfigError, match=r"FED_LOSS_NUM_CLASSES is 4 and there are 3 classes: give a number from 1"):
        build_detector(small_config(overrides=(*FEDERATED, "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", 4)))
