"""Matching in pieces gives what matching in one array gives, and never holds more than a piece."""

from __future__ import annotations

import pytest
import torch

from se_det.detection import matching
from se_det.detection.anchors import AnchorGenerator
from se_det.detection.boxes import pairwise_iou


def at_once(truth, boxes, *, thresholds, labels, allow_low_quality):
    """Detectron2's Matcher, written out on the whole (g, n) array."""
    overlap = pairwise_iou(truth, boxes)
    best, index = overlap.max(0)
    label = torch.full_like(index, labels[0], dtype=torch.int8)
    for threshold, value in zip(thresholds, labels[1:]):
        label[best >= threshold] = value
    if allow_low_quality:
        highest = overlap.amax(1, keepdim=True)
        label[((overlap == highest) & (highest > 0)).any(0)] = 1
    return index, label


def random_boxes(count, *, size, seed, extent=(320, 256)):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor(extent)
    half = (torch.rand(count, 2, generator=generator) * size + 1) / 2
    return torch.cat([centre - half, centre + half], 1)


@pytest.fixture(scope="module")
def anchors():
    generator = AnchorGenerator(
        sizes=[[16], [32], [64]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4, 8, 16], offset=0.0
    )
    return torch.cat(list(generator([torch.zeros(1, 1, 256 // s, 320 // s) for s in (4, 8, 16)])))


@pytest.mark.parametrize("objects", [1, 2, 9, 80, 700])
@pytest.mark.parametrize("low_quality", [True, False])
def test_pieces_equal_the_whole(anchors, objects, low_quality, monkeypatch):
    monkeypatch.setattr(matching, "PIECE", 5000)
    monkeypatch.setattr(matching, "FEWEST", 300)
    how = {"thresholds": (0.3, 0.7), "labels": (0, -1, 1), "allow_low_quality": low_quality}
    for seed, boxes in enumerate((anchors, random_boxes(2000, size=90, seed=7), anchors[:1], anchors[:0])):
        # On the grid, so that many anchors overlap an object equally; and some objects that no anchor meets.
        truth = random_boxes(objects, size=60, seed=seed).mul(0.25).round().mul(4)
        truth[::5] += 5000
        if len(boxes) == 0 and low_quality:
            continue  # no anchors: not a case of the whole array either
        for got, expected in zip(matching.match(truth, boxes, **how), at_once(truth, boxes, **how)):
            assert torch.equal(got, expected)


def test_equal_overlaps_belong_to_the_first_object(anchors):
    twice = anchors[[5000, 5000, 9000]]
    index, label = matching.match(twice, anchors, thresholds=(0.3, 0.7), labels=(0, -1, 1), allow_low_quality=True)
    assert index[5000] == 0 and index[9000] == 2 and label[[5000, 9000]].tolist() == [1, 1]


def test_thousands_of_objects_are_never_held_against_all_anchors(anchors, monkeypatch):
    largest = 0

    def watched(a, b):
        nonlocal largest
        largest = max(largest, len(a) * len(b))
        return pairwise_iou(a, b)

    monkeypatch.setattr(matching, "pairwise_iou", watched)
    truth = random_boxes(3000, size=20, seed=1)
    matching.match(truth, anchors.repeat(4, 1), thresholds=(0.3, 0.7), labels=(0, -1, 1), allow_low_quality=True)
    assert 0 < largest <= matching.FEWEST * len(truth)
