"""NMS of many rows under Triton's interpreter, against torchvision's; tests/layers/test_kernels.py runs this file."""

from __future__ import annotations

import os

import pytest
import torch
from torchvision import ops

from se_det.detection import build_detector
from se_det.detection.triton_nms import nms_of_rows
from se_det.layers.gates import Gate
from tests.detection.conftest import make_sample, small_config
from tests.detection.test_matching import random_boxes

assert os.environ.get("TRITON_INTERPRET") == "1"

# Padding has no area: 0 / 0 is no overlap, as in torchvision; NumPy, which the interpreter computes with, warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_rows_keep_what_torchvision_keeps_of_each(threshold):
    length = 150  # of three tiles, the last not full
    rows = torch.stack([random_boxes(length, size=70, seed=s, extent=(120, 100)) for s in range(3)])
    rows[2, 10:20] = rows[2, 5]  # the same box again and again
    valid = torch.rand(3, length, generator=torch.Generator().manual_seed(0)) > 0.2
    found = nms_of_rows(rows, valid, threshold)
    scores = torch.arange(length, 0, -1).float()
    for boxes, there, stays in zip(rows, valid, found):
        at = there.nonzero()[:, 0]
        expected = at[ops.nms(boxes[at], scores[at], threshold)].sort().values
        assert torch.equal(stays.nonzero()[:, 0], expected)
        assert 0 < len(expected) < len(at)
    assert nms_of_rows(rows[:0], valid[:0], threshold).shape == (0, length)
    assert not nms_of_rows(rows, torch.zeros_like(valid), threshold).any()


def test_proposals_of_all_images_together_are_those_of_each():
    torch.manual_seed(0)
    keys = ("MODEL.KERNELS", "triton", "MODEL.DEVICE", "cpu", "MODEL.RPN.PRE_NMS_TOPK_TEST", 90,
            "MODEL.RPN.POST_NMS_TOPK_TEST", 60)  # fmt: skip
    model = build_detector(small_config(overrides=keys)).eval()
    assert model.proposal_generator.triton and all(m.triton for m in model.modules() if isinstance(m, Gate))
    head = model.proposal_generator.rpn_head
    with torch.no_grad():
        head.objectness_logits.weight.mul_(30)
        head.anchor_deltas.weight.mul_(30)
        batch = [make_sample(96, 128, [], seed=1), make_sample(64, 80, [], seed=2)]
        maps, areas, _, sizes = model.maps(batch)
        together, _ = model.proposal_generator(maps, areas, sizes)
        model.proposal_generator.triton = False
        expected, _ = model.proposal_generator(maps, areas, sizes)
    for (boxes, scores), (wanted, theirs) in zip(together, expected):
        assert len(boxes) == len(wanted) == 60
        # torchvision moves the levels apart and so rounds differently; no overlap here is that close to the threshold.
        assert torch.equal(scores, theirs) and torch.equal(boxes, wanted)
