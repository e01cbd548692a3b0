"""Costs against fvcore, the papers' tables and networks counted by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from se_det.analysis.cost import measure
from se_det.analysis.detector_cost import measure_detector
from se_det.analysis.paper_tables import REPORTED_COSTS, compare_with_papers
from se_det.backbones import create_model
from se_det.config import load_config

MIB = 2**20


def test_a_network_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1, bias=False), nn.ReLU(inplace=True))
    cost = measure(net, (3, 10, 20))
    assert cost.parameters == 8 * 27 + 8 + 32 and cost.parameter_bytes == 4 * cost.parameters
    assert cost.multiply_adds == 200 * (8 * 27 + 8 * 4)
    # Kept: the input and what the first convolution gives, for the weights' gradients; the ReLU's result.
    assert cost.training_bytes == 4 * 200 * (3 + 8 + 4)
    # At most: the input, which the caller holds, and both sides of the second convolution.
    assert cost.inference_bytes == 4 * 200 * (3 + 8 + 4)


def test_memory_is_given_back_where_nothing_refers_to_it():
    deep = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(9)))
    cost = measure(deep, (4, 8, 8))
    one = 4 * 4 * 64
    assert cost.inference_bytes == 3 * one  # the caller's input, and the two sides of a convolution
    assert cost.training_bytes == 9 * one  # the inputs of nine convolutions
    frozen = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(9))).requires_grad_(False)
    assert measure(frozen, (4, 8, 8)).training_bytes == 0


@pytest.mark.parametrize(
    "name",
    ["resnet18", "rg_se_resnet18", "sp_se_resnet18", "cbam_resnet18",
     *(pytest.param(f"{gate}resnext50_32x4d", marks=pytest.mark.slow) for gate in ("", "se_", "rg_se_"))],
)  # fmt: skip
def test_multiply_adds_are_fvcores(name):
    x = torch.zeros(1, 3, 96, 64)
    model = create_model(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = counted.by_operator()
    # Traced, grids are averaged by products of matrices; they have no weights.
    expected = sum(by_operator[kind] for kind in ("conv", "linear"))
    assert measure(model, (3, 96, 64)).multiply_adds == expected


def test_timms_networks_have_timms_parameters():
    timm = pytest.importorskip("timm")
    model = create_model("timm/resnet18")
    assert measure(model, (3, 64, 64)).parameters == sum(p.numel() for p in timm.create_model("resnet18").parameters())


@pytest.mark.parametrize(
    ("pattern", "count"), [("se_resnet50", 7), ("*resnet18", 2), pytest.param("*", 36, marks=pytest.mark.slow)]
)
def test_the_papers_tables(pattern, count):
    rows = compare_with_papers(pattern)
    assert len(rows) >= count
    for row in rows:
        if isinstance(row["parameters_published"], int):
            assert row["parameters_difference"] == 0, row
        elif row["parameters_published"] is not None:
            assert abs(row["parameters_difference"]) <= 0.1, row  # the digit printed
        if row["multiply_adds_published"] is not None:
            least = -0.05 if "next" in row["model"] else -0.01
            assert least < row["multiply_adds"] / row["multiply_adds_published"] - 1 < 0.001, row


def test_every_published_row_says_where_it_is_from():
    assert all(entry.source and (entry.parameters or entry.multiply_adds) for entry in REPORTED_COSTS)


def test_parts_of_a_detector():
    cfg = load_config("configs/mask_rcnn_se_r18_fpn.yaml", ["TEST.DETECTIONS_PER_IMAGE", 10])
    parts = dict(measure_detector(cfg, (100, 150)))  # padded to 128 x 160
    # The box head by hand: 1000 proposals, 256 x 7 x 7 to 1024 to 1024 to 81 + 320.
    boxes = parts["roi_heads.box_* (1000 proposals)"]
    assert boxes.multiply_adds == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    # The RPN head: 3x3 and 3 + 12 outputs on every cell of p2..p6.
    cells = 32 * 40 + 16 * 20 + 8 * 10 + 4 * 5 + 2 * 3
    assert parts["proposal_generator.rpn_head"].multiply_adds == cells * (256 * 256 * 9 + 256 * 15)
    # The mask head: four 3x3 at 14 x 14, a 2x2 deconvolution, the classes at 28 x 28.
    masks = parts["roi_heads.mask_head (10 detections)"].multiply_adds
    assert masks == 10 * (196 * (4 * 256 * 256 * 9 + 256 * 256 * 4) + 784 * 256 * 80)
    # The pyramid: lateral 1x1s of 64..512 channels and output 3x3s.
    levels = ((32 * 40, 64), (16 * 20, 128), (8 * 10, 256), (4 * 5, 512))
    assert parts["backbone (pyramid)"].multiply_adds == sum(n * (c * 256 + 256 * 256 * 9) for n, c in levels)


def test_point_rends_two_heads():
    keys = ["MODEL.RESNETS.DEPTH", 18, "TEST.DETECTIONS_PER_IMAGE", 10, "MODEL.ROI_HEADS.NUM_CLASSES", 5]
    parts = dict(
        measure_detector(load_config("configs/point_rend_se_r50_fpn.yaml", [*keys, "MODEL.WEIGHTS", ""]), (64, 64))
    )
    # 256 channels at 14 x 14, halved by a 2x2 with stride 2, two layers of 1024, 7 x 7 masks of 5 classes.
    coarse = parts["roi_heads.mask_head.coarse_head (10 detections)"].multiply_adds
    assert coarse == 10 * (49 * 256 * 256 * 4 + 49 * 256 * 1024 + 1024 * 1024 + 1024 * 5 * 49)
    # All of 28 x 28 cells, then 784 points three times; three layers of 256 that read the coarse mask again.
    points = parts["roi_heads.mask_head.point_head (3136 points of 10 detections)"].multiply_adds
    assert points == 10 * 3136 * (3 * 256 * (256 + 5) + (256 + 5) * 5)
