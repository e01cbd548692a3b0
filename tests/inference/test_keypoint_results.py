"""Keypoints in results, as COCO JSON, and drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from se_det.errors import ConfigError
from se_det.inference.coco_results import to_coco_results
from se_det.inference.drawing import draw_detections
from se_det.inference.result import Result

INSTANCES = {
    "pred_boxes": torch.tensor([[10.0, 10.0, 50.0, 40.0], [0.0, 0.0, 9.0, 9.0]]),
    "scores": torch.tensor([0.9, float("nan")]),
    "pred_classes": torch.tensor([0, 0]),
    "pred_keypoints": torch.tensor([[[20.5, 15.5, 0.9], [40.0, 30.0, 0.01]], [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0]]]),
}


def test_coco_results_number_pixels():
    [result], dropped = to_coco_results(INSTANCES, image_id=3, category_ids=[7], masks=False, keypoints=True)
    assert dropped == 1
    np.testing.assert_allclose(result["keypoints"], [20.0, 15.0, 0.9, 39.5, 29.5, 0.01], rtol=1e-6)
    without = {key: value for key, value in INSTANCES.items() if key != "pred_keypoints"}
    with pytest.raises(ConfigError, match="MODEL.KEYPOINT_ON True"):
        to_coco_results(without, image_id=3, category_ids=[7], masks=False, keypoints=True)


def test_a_result_has_them_as_a_column():
    columns = {name.removeprefix("pred_"): value[:1].numpy() for name, value in INSTANCES.items()}
    result = Result(columns, class_names=["owl"], skeleton=[(0, 1)])
    assert result.keypoints.shape == (1, 2, 3) and result[:0].keypoints.shape == (0, 2, 3)
    assert result[:1].skeleton == ((0, 1),)
    assert result.to_coco(5)[0]["keypoints"][:2] == [20.0, 15.0]
    assert (result.draw(np.zeros((60, 60, 3), np.uint8)) != 0).any()


def test_what_scores_enough_is_drawn_with_its_bones():
    image = np.zeros((60, 80, 3), np.uint8)
    sure = {key: value[:1].clone() for key, value in INSTANCES.items()}

    def drawn(**more):
        return draw_detections(image, sure, ["owl"], score_threshold=0, **more)

    assert drawn()[15, 20].any() and not drawn()[30, 40].any()  # (y, x); the second scores too little
    sure["pred_keypoints"][0, 1, 2] = 0.5
    between = drawn(skeleton=[(0, 1)])[15:31, 20:41].any(2).sum() - drawn()[15:31, 20:41].any(2).sum()
    assert drawn()[30, 40].any() and between > 10
