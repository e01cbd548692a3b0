"""Cascades and other RoI heads against what Detectron2 computed; see tests/integrations/roi_heads_cases.py."""

from __future__ import annotations

import pytest

from ..integrations import roi_heads_cases as cases


@pytest.mark.parametrize("name", cases.CASES)
def test_detections_losses_and_gradients_are_detectron2s(name: str):
    cases.check(cases.our_numbers(cases.CASES[name]), cases.read_golden(name))
