"""Soft-NMS against the algorithm of its paper, written out class by class."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from se_det.detection.build import build_detector
from se_det.detection.nms import LEAST_SCORE, suppress
from se_det.errors import ConfigError

from .conftest import small_config


def candidates(count: int = 120) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 20 + 20 * torch.rand(count, 2, generator=generator)], 1)
    return boxes, torch.rand(count, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def from_paper(boxes, scores, classes, kind, threshold, sigma):
    """Figure 2 of arXiv 1704.04503, for each class by itself: {position: score}."""
    found = {}
    for c in classes.unique().tolist():
        left = {i: float(scores[i]) for i in (classes == c).nonzero()[:, 0].tolist()}
        while left:
            best = max(left, key=left.get)
            found[best] = left.pop(best)
            for i in left:
                iou = float(box_iou(boxes[best : best + 1], boxes[i : i + 1]))
                if kind == "gaussian":
                    left[i] *= math.exp(-(iou**2) / sigma)
                elif iou >= threshold:
                    left[i] *= 1 - iou
    return {i: score for i, score in found.items() if score >= LEAST_SCORE}


@pytest.mark.parametrize("most", [15, 1000])
@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_soft_nms_is_the_papers(kind, most):
    boxes, scores, classes = candidates()
    keep, found = suppress(boxes, scores, classes, threshold=0.3, most=most, kind=kind, sigma=0.4)
    expected = from_paper(boxes, scores, classes, kind, 0.3, 0.4)
    order = sorted(expected, key=expected.get, reverse=True)[:most]
    assert keep.tolist() == order
    assert len(order) == most or most // 2 > len(order) > 20
    torch.testing.assert_close(found, torch.tensor([expected[i] for i in order]), rtol=1e-4, atol=1e-6)


def test_hard_nms_is_torchvisions():
    boxes, scores, classes = candidates()
    keep, found = suppress(boxes, scores, classes, threshold=0.3, most=20)
    assert torch.equal(keep, batched_nms(boxes, scores, classes, 0.3)[:20])
    assert torch.equal(found, scores[keep])


@pytest.mark.parametrize("kind", ["hard", "linear", "gaussian"])
def test_nothing_comes_of_nothing(kind):
    keep, found = suppress(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), threshold=0.5, most=5, kind=kind
    )
    assert keep.shape == found.shape == (0,)


def test_the_key_chooses():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    found = {}
    for kind in ("hard", "linear", "gaussian"):
        overrides = ("MODEL.ROI_HEADS.NMS_TYPE", kind, "MODEL.ROI_HEADS.SOFT_NMS_SIGMA", 0.32)
        predictor = build_detector(small_config(overrides=overrides)).roi_heads.box_predictor
        found[kind] = predictor.select(boxes, torch.tensor([0.5, 0.4]), torch.tensor([1, 1]))["scores"].tolist()
    assert found["hard"] == [0.5]
    assert found["linear"] == pytest.approx([0.5, 0.4 * 0.2])
    assert found["gaussian"] == pytest.approx([0.5, 0.4 * math.exp(-2)])
    with pytest.raises(ConfigError, match=r"MODEL\.ROI_HEADS\.NMS_TYPE 'soft' is unknown: use one of hard, linear"):
        build_detector(small_config(overrides=("MODEL.ROI_HEADS.NMS_TYPE", "soft")))
