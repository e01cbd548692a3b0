"""Cascades and other RoI heads against an installed Detectron2, on the same weights and images."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("detectron2", reason="needs Detectron2")

from se_det.detection.keypoints import heatmap_cells, heatmaps_to_keypoints

from . import options_cases
from . import roi_heads_cases as cases

pytestmark = [pytest.mark.detectron2, pytest.mark.filterwarnings("ignore:torch.meshgrid")]  # Detectron2's anchors


@pytest.mark.parametrize("name", cases.CASES)
def test_detections_losses_and_gradients_are_the_same(name: str):
    cases.check(cases.our_numbers(cases.CASES[name]), cases.their_numbers(cases.CASES[name]))


@pytest.mark.parametrize("gate", ["none", "sp_se", "rg_se", "cbam"])
@pytest.mark.parametrize("name", ["cascade", "keypoint", "point_rend"])
def test_every_gate(name: str, gate: str):
    case = cases.CASES[name]
    case = case._replace(keys=[*case.keys, "MODEL.GATE.NAME", gate])
    cases.check(cases.our_numbers(case), cases.their_numbers(case))


@pytest.mark.parametrize("name", ["cascade", "point_rend"])
def test_test_time_augmentation_is_the_same(name: str):
    config, keys = cases.CASES[name]
    options_cases.check_augmented(
        options_cases.our_augmented(config, keys), options_cases.their_augmented(config, keys)
    )


def test_keypoints_of_heat_maps_are_the_same():
    from detectron2 import structures

    torch.manual_seed(0)
    maps = F.avg_pool2d(torch.randn(12, 5, 56, 56), 5, 1, 2) * 8
    corner = torch.rand(12, 2) * 300
    boxes = torch.cat([corner, corner + torch.rand(12, 2) * 200 + 0.3], 1)
    ours, theirs = heatmaps_to_keypoints(maps, boxes), structures.heatmaps_to_keypoints(maps, boxes)[:, :, [0, 1, 3]]
    assert (ours[..., :2] - theirs[..., :2]).abs().max() < 1e-2
    assert (ours[..., 2] - theirs[..., 2]).abs().max() < 1e-4
    points = torch.cat([boxes[:, None, :2] + (torch.rand(12, 5, 2) * 1.2 - 0.1) * 100, torch.ones(12, 5, 1)], 2)
    points[0, 0, :2] = boxes[0, 2:]
    cells, valid = heatmap_cells(points, boxes, 56)
    expected = structures.Keypoints(points).to_heatmap(boxes, 56)
    assert torch.equal(cells, expected[0]) and torch.equal(valid.long(), expected[1]) and 10 < valid.sum() < 60
