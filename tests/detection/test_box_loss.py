"""GIoU, DIoU and CIoU losses against their papers' formulas, and both stages' losses written out with them."""

from __future__ import annotations

import math

import pytest
import torch

from se_det.detection import boxes as box_ops
from se_det.detection.box_loss import BOX_LOSSES, box_loss
from se_det.detection.build import build_detector
from se_det.detection.rpn import SampledAnchors
from se_det.errors import ConfigError

from .conftest import small_config

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def from_paper(kind: str, a: list[float], b: list[float]) -> float:
    """The loss of box `a` on box `b`, in plain numbers."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    sides = [(x[2] - x[0], x[3] - x[1]) for x in (a, b)]
    union = sum(w * h for w, h in sides) - width * height
    iou = width * height / union
    hull = (max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    if kind == "giou":
        return 1 - iou + (hull[0] * hull[1] - union) / (hull[0] * hull[1])
    centres = [((x[0] + x[2]) / 2, (x[1] + x[3]) / 2) for x in (a, b)]
    loss = 1 - iou + math.dist(*centres) ** 2 / math.hypot(*hull) ** 2
    if kind == "ciou":
        (w, h), (w_true, h_true) = sides
        v = 4 / math.pi**2 * (math.atan(w_true / h_true) - math.atan(w / h)) ** 2
        loss += v * v / (1 - iou + v)
    return loss


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses_are_their_papers(kind):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, 2, generator=generator, dtype=torch.float64) * 60
    sides = torch.rand(50, 2, 2, generator=generator, dtype=torch.float64) * 50 + 2
    targets, sources = (torch.cat([corners[:, i], corners[:, i] + sides[:, i]], 1) for i in range(2))
    deltas = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    found = box_loss(deltas, sources, targets, weights=WEIGHTS, kind=kind)
    moved = box_ops.decode(deltas, sources, WEIGHTS)
    expected = [from_paper(kind, a, b) for a, b in zip(moved.tolist(), targets.tolist())]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert 0 < sum(value > 1 for value in expected) < 50  # some meet and some do not


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_gradients_are_the_slopes(kind):
    sources = torch.tensor([[0.0, 0, 20, 30], [10, 10, 40, 25]], dtype=torch.float64)
    targets = sources + torch.tensor([[3.0, -2, 6, 4], [-4, 1, 2, 5]], dtype=torch.float64)
    deltas = torch.tensor([[0.3, 0.2, -0.4, 0.5], [-0.6, 0.7, 0.1, -0.2]], dtype=torch.float64, requires_grad=True)

    def loss(deltas):
        return box_loss(deltas, sources, targets, weights=WEIGHTS, kind=kind, beta=0.5)

    if kind == "ciou":  # the weight of its third term is taken for a constant, as the paper does
        loss(deltas).sum().backward()
        assert torch.isfinite(deltas.grad).all() and (deltas.grad != 0).all()
    else:
        assert torch.autograd.gradcheck(loss, (deltas,))


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_both_stages_sum_over_positives_and_divide_by_all(kind):
    overrides = ("MODEL.RPN.BBOX_REG_LOSS_TYPE", kind, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", kind,
                 "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 3.0, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", 2.0)  # fmt: skip
    model = build_detector(small_config(overrides=overrides))
    torch.manual_seed(0)
    sources = torch.tensor([[0.0, 0, 10, 10]] * 6) + torch.arange(6.0)[:, None]
    truth = sources + torch.tensor([1.0, -1, 2, 3])
    deltas = torch.randn(6, 12)
    classes = torch.tensor([0, 3, 2, 3, 1, 3])
    found = model.roi_heads.box_predictor.losses(torch.randn(6, 4), deltas, sources, classes, truth)["loss_box_reg"]
    expected = 0.0
    for i, c in enumerate(classes.tolist()):
        if c < 3:
            moved = box_ops.decode(deltas[i, 4 * c : 4 * c + 4], sources[i], WEIGHTS)
            expected += from_paper(kind, moved.tolist(), truth[i].tolist())
    assert found.item() == pytest.approx(2 * expected / 6, rel=1e-4)

    labels = torch.tensor([[1, 0, 1], [0, 0, 1]])
    filled = torch.tensor([[True, True, True], [True, True, False]])
    anchors, truth, deltas = sources.view(2, 3, 4), truth.view(2, 3, 4), deltas[:, :4].reshape(2, 3, 4)
    targets = torch.where((labels == 1)[..., None], truth, anchors)
    sampled = SampledAnchors(torch.zeros(2, 3, dtype=torch.int64), filled, labels, anchors, targets)
    found = model.proposal_generator.losses(sampled, torch.zeros(2, 3), deltas)["loss_rpn_loc"]
    moved = box_ops.decode(deltas, anchors, (1, 1, 1, 1))
    expected = sum(from_paper(kind, moved[0, i].tolist(), truth[0, i].tolist()) for i in (0, 2))
    assert found.item() == pytest.approx(3 * expected / (2 * 256), rel=1e-4)


def test_unknown_losses_are_refused():
    for section in ("RPN", "ROI_BOX_HEAD"):
        key = f"MODEL.{section}.BBOX_REG_LOSS_TYPE"
        with pytest.raises(ConfigError, match=f"{key} 'iou' is unknown: use one of smooth_l1, giou, diou, ciou"):
            build_detector(small_config(overrides=(key, "iou")))
