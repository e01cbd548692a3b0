"""Deformable convolutions: the formula, padding, folding. Detectron2's numbers: tests/integrations/families/dc5.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from se_det.analysis.cost import measure
from se_det.backbones import create_backbone
from se_det.backbones.deform_block import DeformBottleneck
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError
from se_det.layers.deform_conv import DeformConv2d
from se_det.layers.valid_area import ValidArea

SLIM = {"depth": 50, "width_per_group": 8, "res2_channels": 32, "stem_channels": 8, "norm": "FrozenBN"}


def by_hand(x, weight, offset, factor):
    """Each point of each cell read by bilinear sampling, zeros outside; one group, stride 1, padding 1."""
    height, width = x.shape[-2:]
    columns = []
    padded = F.pad(x, (1, 1, 1, 1))  # one more cell on each side: what is further out is clipped to zeros
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for point in range(9):
        y = ys + point // 3 - 1 + offset[:, 2 * point]
        at = xs + point % 3 - 1 + offset[:, 2 * point + 1]
        grid = torch.stack([(at + 1) / (width + 1) * 2 - 1, (y + 1) / (height + 1) * 2 - 1], -1)
        value = F.grid_sample(padded, grid, align_corners=True, padding_mode="zeros")
        columns.append(value * factor[:, point, None])
    return torch.einsum("ockp,ncphw->nohw", weight.flatten(2)[:, :, None], torch.stack(columns, 2))


def test_it_is_the_formula_with_modulation():
    torch.manual_seed(0)
    conv = DeformConv2d(4, 6, 3, padding=1, bias=False)
    x, offset, factor = torch.randn(2, 4, 9, 7), torch.randn(2, 18, 9, 7), torch.rand(2, 9, 9, 7)
    expected = by_hand(x, conv.weight, offset, factor)
    torch.testing.assert_close(conv(x, offset=offset, factor=factor), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modulated", [False, True])
def test_undeformed_it_is_the_plain_network_whose_points_count_half_where_modulated(modulated: bool):
    torch.manual_seed(0)
    plain = create_backbone("resnet50", **SLIM)
    deformable = create_backbone(
        "resnet50", **SLIM, deform_on_per_stage=(False, True, False, True), deform_modulated=modulated, deform_groups=2
    )
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(".conv2_offset." in name for name in missing) and missing
    if modulated:
        with torch.no_grad():
            for block in deformable.blocks():
                if isinstance(block, DeformBottleneck):
                    block.conv2.weight.mul_(2)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for name, values in plain(x).items():
            torch.testing.assert_close(deformable(x)[name], values, rtol=1e-4, atol=1e-4)


def test_its_multiply_adds_are_those_of_a_plain_convolution_and_of_the_offsets():
    plain, deformable = (
        measure(create_backbone("resnet50", **SLIM, deform_on_per_stage=(False, False, False, last)), (3, 64, 64))
        for last in (False, True)
    )
    # 18 values of each of 2 x 2 cells, in three blocks, from 9 cells of 64 channels each.
    assert deformable.multiply_adds - plain.multiply_adds == 3 * 2 * 2 * 18 * 9 * 64


def lively(gate: str, padding: str):
    torch.manual_seed(0)
    model = create_backbone(
        f"{gate}_resnet50", **SLIM, padding=padding, deform_on_per_stage=(False, True, True, True),
        deform_modulated=True,
    )  # fmt: skip
    for block in model.blocks():
        if isinstance(block, DeformBottleneck):
            torch.nn.init.normal_(block.conv2_offset.weight, std=0.1)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("gate", ["se", "rg_se", "cbam"])
def test_under_exact_padding_what_lies_beside_an_image_changes_nothing(gate: str):
    model = lively(gate, "exact")
    image, beside = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 96, 128)
    batch = torch.cat([F.pad(image, (0, 64, 0, 32)), beside])
    alone, together = model(image, [(64, 64)]), model(batch, [(64, 64), (96, 128)])
    for name, values in alone.items():
        height, width = values.shape[-2:]
        torch.testing.assert_close(together[name][:1, :, :height, :width], values, rtol=1e-3, atol=1e-3)


def test_prepared_for_inference_a_detector_with_them_gives_the_same():
    keys = [
        "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.WIDTH_PER_GROUP", 16,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True], "MODEL.RESNETS.DEFORM_MODULATED", True,
    ]  # fmt: skip
    torch.manual_seed(0)
    model = build_detector(load_config("configs/faster_rcnn_se_r50_fpn.yaml", keys)).eval()
    for name, values in model.named_buffers():
        if name.endswith(("norm.running_mean", "norm.bias")):
            values.normal_(0, 0.1)
        elif name.endswith("norm.running_var"):
            values.uniform_(0.8, 1.2)
    for block in model.modules():
        if isinstance(block, DeformBottleneck):
            torch.nn.init.normal_(block.conv2_offset.weight, std=0.1)
    fast, half = (prepare_for_inference(copy.deepcopy(model), precision=p) for p in ("float32", "bfloat16"))
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)]
    with torch.no_grad():
        want, got, rough = (one.backbone(one.batch(images)[0]) for one in (model, fast, half))
    for name, values in want.items():
        torch.testing.assert_close(got[name], values, rtol=1e-3, atol=1e-3 * float(values.abs().max()))
        assert float((rough[name].float() - values).norm() / values.norm()) < 0.05


def test_what_cannot_be_deformed_is_refused():
    for depth, stages in ((18, [False, False, False, True]), (50, [True])):
        with pytest.raises(ConfigError, match=rf"MODEL.RESNETS.DEFORM_ON_PER_STAGE .* DEPTH is {depth}"):
            create_backbone(f"resnet{depth}", deform_on_per_stage=stages)


def test_an_area_is_followed_through_a_stride():
    torch.manual_seed(0)
    model = lively("se", "squeeze")
    _, areas = model.features(torch.randn(2, 3, 64, 96), ValidArea(((64, 96), (33, 50))))
    assert areas["res5"].sizes == ((2, 3), (2, 2))
