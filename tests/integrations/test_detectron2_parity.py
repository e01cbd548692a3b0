"""The builtin detector against an installed Detectron2, on the same weights and images."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from .detectron2_pair import GATES, compare_inference, compare_training, make_pair
from .known_weights import SAMPLE_ALL, SLIM, samples

pytestmark = pytest.mark.detectron2


@pytest.mark.parametrize("masks", [False, True], ids=["faster", "mask"])
@pytest.mark.parametrize("gate", GATES)
def test_detections_losses_and_gradients_are_the_same(gate: str, masks: bool):
    # Without gates Detectron2's side is all its own, its ResNet too.
    ours, theirs = make_pair(gate, masks=masks, overrides=[*SLIM, *SAMPLE_ALL], own_resnet=gate == "none")
    found = compare_inference(ours, theirs, samples()) | compare_training(ours, theirs, samples())
    assert found["detections"] > 100
    assert found["features"] < 1e-5
    assert found["FPN"] < 1e-5
    assert found["proposals px"] < 1e-2
    assert found["boxes px"] < 1e-2
    assert found["scores"] < 1e-4
    assert found["losses"] < 1e-4
    assert found["gradients"] < 1e-3
