"""Cascades and other RoI heads against an installed Detectron2, on the same weights and images."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from . import options_cases
from . import roi_heads_cases as cases
from .detectron2_pair import compare_inference, compare_training
from .known_weights import SAMPLE_ALL, samples

pytestmark = [pytest.mark.detectron2, pytest.mark.filterwarnings("ignore:torch.meshgrid")]  # Detectron2's anchors


@pytest.mark.parametrize("name", cases.CASES)
def test_detections_losses_and_gradients_are_the_same(name: str):
    cases.check(cases.our_numbers(cases.CASES[name]), cases.their_numbers(cases.CASES[name]))


@pytest.mark.parametrize("gate", ["none", "sp_se", "rg_se", "cbam"])
@pytest.mark.parametrize("name", ["cascade"])
def test_every_gate(name: str, gate: str):
    keys = "MODEL.GATE.NAME", gate, "TEST.DETECTIONS_PER_IMAGE", 100, *SAMPLE_ALL
    ours, theirs = cases.our_detector(cases.CASES[name], *keys), cases.their_detector(cases.CASES[name], *keys)
    found = compare_inference(ours, theirs, samples()) | compare_training(ours, theirs, samples())
    assert found["detections"] > 100
    assert found["boxes px"] < 1e-2
    assert found["scores"] < 1e-4
    assert found["masks 1-IoU"] < (5e-3 if gate == "none" else 1e-3)  # without gates one pixel of a small mask differs
    assert found["losses"] < 1e-4
    assert found["gradients"] < 1e-3


@pytest.mark.parametrize("name", ["cascade"])
def test_test_time_augmentation_is_the_same(name: str):
    config, keys = cases.CASES[name]
    options_cases.check_augmented(
        options_cases.our_augmented(config, keys), options_cases.their_augmented(config, keys)
    )
