"""Box arithmetic, anchors, matching and sampling, against hand-worked values and torchvision."""

from __future__ import annotations

import math

import torch
from torchvision.ops import box_iou

from se_det.detection import boxes as box_ops
from se_det.detection.anchors import AnchorGenerator
from se_det.detection.matching import match, sample


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 80
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60 + 1], 1)


def test_iou_is_torchvisions():
    a, b = random_boxes(20), random_boxes(30, seed=1)
    torch.testing.assert_close(box_ops.pairwise_iou(a, b), box_iou(a, b))
    assert box_ops.pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0  # not NaN


def test_deltas_by_hand():
    source = torch.tensor([[0.0, 0, 10, 20]])
    target = torch.tensor([[5.0, 10, 25, 20]])  # centre (15, 15), 20 x 10; source centre (5, 10), 10 x 20
    expected = torch.tensor([[10 * 1.0, 10 * 0.25, 5 * math.log(2), 5 * math.log(0.5)]])
    deltas = box_ops.encode(source, target, (10, 10, 5, 5))
    torch.testing.assert_close(deltas, expected)
    torch.testing.assert_close(box_ops.decode(deltas, source, (10, 10, 5, 5)), target)


def test_predicted_growth_is_bounded():
    grown = box_ops.decode(torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([[0.0, 0, 16, 16]]), (1, 1, 1, 1))
    torch.testing.assert_close(grown, torch.tensor([[8 - 500.0, 8 - 500, 8 + 500, 8 + 500]]))


def test_anchors_by_hand():
    generator = AnchorGenerator(sizes=[[32, 64]], aspect_ratios=[[0.25, 1, 4]], strides=[4])
    (anchors,) = generator([torch.zeros(1, 8, 1, 2)])
    expected = torch.tensor(
        [[-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32], [-64, -16, 64, 16], [-32, -32, 32, 32],
         [-16, -64, 16, 64]]
    ).float()  # fmt: skip
    torch.testing.assert_close(anchors[:6], expected)
    torch.testing.assert_close(anchors[6:], expected + torch.tensor([4.0, 0, 4, 0]))


def test_matching_by_hand():
    truth = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [100, 100, 110, 104], [50, 50, 60, 60]])
    index, label = match(truth, boxes, thresholds=(0.3, 0.7), labels=(0, -1, 1), allow_low_quality=False)
    assert label.tolist() == [1, -1, 0, -1, 0] and index.tolist()[:4] == [0, 0, 0, 1]
    _, label = match(truth, boxes, thresholds=(0.3, 0.7), labels=(0, -1, 1), allow_low_quality=True)
    assert label.tolist() == [1, -1, 0, 1, 0]  # the best box of the second truth, at IoU 0.4
    _, label = match(truth[:1], boxes[1:2], thresholds=(0.5,), labels=(0, 1), allow_low_quality=False)
    assert label.tolist() == [1]  # an IoU on the bound belongs to the upper label
    index, label = match(truth[:0], boxes, thresholds=(0.5,), labels=(0, 1), allow_low_quality=True)
    assert label.tolist() == [0] * 5 and index.tolist() == [0] * 5


def test_sampling_counts():
    labels = torch.zeros(3, 1000, dtype=torch.int8)
    labels[0, :300] = 1  # more positives than wanted
    labels[1, :10] = 1  # fewer
    labels[2, :990] = -1  # hardly anything to draw from
    at, filled = sample(labels, 256, 0.5)
    for row, positives, negatives in ((0, 128, 128), (1, 10, 246), (2, 0, 10)):
        drawn = at[row][filled[row]]
        assert len(set(drawn.tolist())) == len(drawn) == positives + negatives
        assert (labels[row][drawn] == 1).sum() == positives and (labels[row][drawn] == 0).sum() == negatives


def test_sampling_is_uniform():
    torch.manual_seed(0)
    labels = torch.zeros(4000, 20, dtype=torch.int8)
    labels[:, :8] = 1
    at, filled = sample(labels, 8, 0.5)
    counts = torch.bincount(at[filled], minlength=20) / 4000
    # 4 of 8 positives and 4 of 12 negatives; 5 standard deviations of a binomial frequency
    assert (counts[:8] - 0.5).abs().max() < 5 * 0.5 / 4000**0.5
    assert (counts[8:] - 1 / 3).abs().max() < 5 * 0.48 / 4000**0.5
