"""Augmentations that are Detectron2's, against what it made; see make_augmentation_golden.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from augmentation_samples import random_sample
from make_augmentation_golden import FILE, NUMBERS, checksum
from test_detectron2_augmentations import CASES, OURS

from se_det.data.samples import _instances

GOLDEN = json.loads(FILE.read_text())


def areas(masks: dict, count: int) -> np.ndarray:
    """Of each instance's polygons, px^2, as the shoelace formula gives them."""
    result, first = np.zeros(count), 0
    for points, owner in zip(masks["polygon_points"], masks["polygon_owner"]):
        x, y = masks["polygons"][first : first + points].T
        result[owner] += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
        first += points
    return result


@pytest.mark.parametrize("case", CASES)
def test_samples_are_detectron2s(case: str) -> None:
    for number, expected in zip(NUMBERS, GOLDEN[case], strict=True):
        sample, random = (
            random_sample(np.random.default_rng((number, 7)), kinds="polygons"),
            np.random.default_rng(number),
        )
        for name, arguments in CASES[case]:
            sample = OURS[name](**arguments)(sample, random)
        assert list(sample.size) == expected["size"]
        assert expected["pixels"] in (None, checksum(sample.image))
        found = _instances(sample)
        assert found["gt_classes"].tolist() == expected["classes"]
        np.testing.assert_allclose(found["gt_boxes"].reshape(-1, 4), np.reshape(expected["boxes"], (-1, 4)), atol=2e-4)
        np.testing.assert_allclose(areas(found["gt_masks"], len(expected["areas"])), expected["areas"], rtol=1e-5)
