"""Semantic and panoptic models against an installed Detectron2."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from . import segmentation_cases as cases

pytestmark = [pytest.mark.detectron2, pytest.mark.filterwarnings("ignore:torch.meshgrid")]  # Detectron2's anchors


@pytest.mark.parametrize("case", cases.CASES)
def test_losses_gradients_logits_and_segments_are_the_same(case: str):
    cases.check(cases.ours(case), cases.theirs(case), case)


def test_segments_are_combined_alike():
    cases.check(cases.our_combination(), cases.their_combination(), "combined")
