"""Losses and test-time augmentation against what Detectron2 computed; see tests/integrations/options_cases.py."""

from __future__ import annotations

import numpy as np
import pytest

from ..integrations import options_cases as cases


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(cases.GOLDEN) as file:
        found = dict(file)
    shape = found.pop("views/mask_shape")
    found["views/masks"] = np.unpackbits(found["views/masks"])[: shape.prod()].reshape(shape).astype(bool)
    return found


def test_box_losses_are_detectron2s(golden):
    cases.check_losses(cases.our_box_losses(), golden)


def test_sigmoid_and_federated_losses_are_detectron2s(golden):
    cases.check_losses(cases.our_predictor_losses(), golden)


def test_test_time_augmentation_is_detectron2s(golden):
    cases.check_augmented(cases.our_augmented(), golden)
