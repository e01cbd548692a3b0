"""Semantic and panoptic models against what Detectron2 computed; see tests/integrations/segmentation_cases.py."""

from __future__ import annotations

import numpy as np
import pytest

from ..integrations import segmentation_cases as cases


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(cases.GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize("case", cases.IN_FILE)
def test_models_are_detectron2s(golden, case):
    cases.check(cases.thinned(cases.ours(case)), golden, case)


def test_combination_is_detectron2s(golden):
    cases.check(cases.our_combination(), golden, "combined")
