"""Where a residual block has its gate, its reduction and its stages, as in the SE paper's ablations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from se_det.backbones import create_backbone, create_model
from se_det.backbones.blocks import BasicBlock
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError
from se_det.layers.gates import SE
from se_det.weights import load_weights

PLACEMENTS = ("standard", "pre", "post", "identity")


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model("se_resnet50", **options).parameters())


def test_reduction_has_the_published_parameter_counts():
    # Hu et al., ablation of the reduction, in millions. All five are rounded up: 35.64 is printed as 35.7.
    for reduction, published in {2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}.items():
        assert math.ceil(count(reduction=reduction) / 1e5) / 10 == published


def test_stages_add_what_the_formula_says():
    # 2 C^2 / r weights and C + C / r biases per block, of 3, 4, 6, 3 blocks.
    plain = 25_557_032
    for stage, blocks, channels in zip(("res2", "res3", "res4", "res5"), (3, 4, 6, 3), (256, 512, 1024, 2048)):
        hidden = channels // 16
        assert count(gate_stages=[stage]) - plain == blocks * (2 * channels * hidden + channels + hidden)
    # Section 6.4 (without biases there): leaving out the last stage cuts the extra parameters from 10 % to 4 %.
    extra = count(gate_stages=["res2", "res3", "res4"], gate_bias=False) / plain - 1
    assert 0.03 < extra < 0.045 and 0.09 < count(gate_bias=False) / plain - 1 < 0.105


def by_hand(block: BasicBlock, placement: str, x: torch.Tensor) -> torch.Tensor:
    """Figure 5 of the paper, drawn with the block's own layers."""

    def residual(x):
        return block.conv2(F.relu(block.conv1(x)))

    def gate(x):
        hidden = F.relu(block.gate.fc1(x.mean((-2, -1))))
        return x * torch.sigmoid(block.gate.fc2(hidden))[:, :, None, None]

    shortcut = x if block.shortcut is None else block.shortcut(x)
    if placement == "standard":
        return F.relu(gate(residual(x)) + shortcut)
    if placement == "pre":
        return F.relu(residual(gate(x)) + shortcut)
    if placement == "post":
        return gate(F.relu(residual(x) + shortcut))
    return F.relu(residual(x) + gate(shortcut))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placement_is_that_of_the_papers_figure(placement):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 11)
    for out_channels, stride in ((8, 1), (16, 2)):
        block = BasicBlock(
            8, out_channels, stride=stride, norm="BN", gate=lambda c: SE(c, reduction=2), placement=placement
        ).eval()
        torch.testing.assert_close(block(x)[0], by_hand(block, placement, x))


@pytest.mark.slow
def test_identity_gates_keep_the_function_or_are_refused(tmp_path):
    torch.manual_seed(0)
    plain = create_backbone("resnet18").eval()
    path = tmp_path / "plain.pth"
    torch.save(plain.state_dict(), path)
    x = torch.randn(1, 3, 64, 64)
    expected = plain(x)["res5"]
    for placement in PLACEMENTS:
        gated = create_backbone("se_resnet18", gate_placement=placement).eval()
        if placement in ("post", "identity"):
            with pytest.raises(ConfigError, match=r"MODEL.GATE.INIT identity is not possible .* Use INIT paper"):
                load_weights(gated, path, gate_init="identity")
            with pytest.raises(ConfigError, match=r"MODEL.GATE.INIT identity"):
                create_backbone("se_resnet18", gate_placement=placement, gate_init="identity")
        else:
            load_weights(gated, path)
            assert (gated(x)["res5"] - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_config_places_the_gate(placement):
    cfg = load_config("configs/faster_rcnn_se_r50_fpn.yaml", ["MODEL.GATE.PLACEMENT", placement])
    with torch.device("meta"):
        trunk = build_detector(cfg).backbone.bottom_up
    block = trunk.res3[0]
    assert block.placement == placement
    assert block.gate.fc1.in_features == (256 if placement == "pre" else 512)


def test_unknown_placements_are_refused():
    with pytest.raises(ConfigError, match="MODEL.GATE.PLACEMENT 'before' is unknown: use one of standard, pre, post"):
        create_backbone("se_resnet18", gate_placement="before")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_exact_padding_works_wherever_the_gate_sits(placement):
    torch.manual_seed(0)
    trunk = create_backbone("se_resnet18", gate_placement=placement, padding="exact").eval()
    for norm in (module for module in trunk.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    alone = torch.randn(1, 3, 70, 101)
    batch = torch.zeros(1, 3, 128, 128)
    batch[..., :70, :101] = alone
    expected, result = trunk(alone, [(70, 101)])["res5"], trunk(batch, [(70, 101)])["res5"]
    cut = result[..., : expected.shape[2], : expected.shape[3]]
    assert (cut - expected).abs().max() / expected.abs().max() < 1e-5
