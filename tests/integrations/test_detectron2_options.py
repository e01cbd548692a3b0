"""Losses of boxes and classes, rates, and test-time augmentation against an installed Detectron2."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from . import options_cases as cases
from .detectron2_pair import compare_training, make_pair
from .known_weights import SAMPLE_ALL, SLIM, samples

pytestmark = [pytest.mark.detectron2, pytest.mark.filterwarnings("ignore:torch.meshgrid")]  # Detectron2's anchors


def test_losses_and_gradients_are_the_same():
    cases.check_losses(cases.our_box_losses(), cases.their_box_losses())
    cases.check_losses(cases.our_predictor_losses(), cases.their_predictor_losses())


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_whole_detectors_have_the_same_losses_and_gradients(kind: str):
    overrides = [
        *SLIM, *SAMPLE_ALL, "MODEL.RPN.BBOX_REG_LOSS_TYPE", kind, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", kind,
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 2.0, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True,
    ]  # fmt: skip
    found = compare_training(*make_pair("se", masks=False, overrides=overrides), samples())
    assert found["losses"] < 1e-4
    assert found["gradients"] < 1e-3


def test_test_time_augmentation_is_the_same():
    cases.check_augmented(cases.our_augmented(), cases.their_augmented())
