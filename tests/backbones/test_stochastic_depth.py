"""Stochastic depth: whole branches left out for some images of a batch, in training alone."""

from __future__ import annotations

import pytest
import torch

from se_det.backbones.catalog import create_backbone
from se_det.config import load_config
from se_det.detection.bottom_up import build_bottom_up
from se_det.errors import ConfigError

CONFIG = "configs/mask_rcnn_se_r18_fpn.yaml"


@pytest.mark.parametrize("name", ["se_resnet18", "cbam_resnet50"])
def test_an_image_goes_by_the_shortcut_alone_or_by_a_branch_that_counts_more(name):
    torch.manual_seed(0)
    block = create_backbone(name, norm="FrozenBN").res3[1]
    block.drop_rate = 0.4
    x = torch.randn(200, block.last.out_channels, 3, 3).relu()
    out = block(x)[0]
    block.eval()
    branch = block._branch(block.forward_to_last(x, None)[0], None)
    torch.testing.assert_close(block(x)[0], torch.relu(x + branch))
    whole, alone = torch.relu(x + branch / 0.6), x
    dropped = [torch.allclose(row, other, atol=1e-5) for row, other in zip(out, alone)]
    kept = [torch.allclose(row, other, atol=1e-4) for row, other in zip(out, whole)]
    assert all(a != b for a, b in zip(dropped, kept))
    assert 55 < sum(dropped) < 105  # 80 expected, 7 the standard deviation


def test_rates_rise_to_the_last_block_and_frozen_blocks_have_none():
    keys = ["MODEL.RESNETS.STOCHASTIC_DEPTH", 0.7, "MODEL.BACKBONE.FREEZE_AT"]
    rates = [block.drop_rate for block in build_bottom_up(load_config(CONFIG, [*keys, 0])).blocks()]
    assert rates == pytest.approx([0.7 * i / 7 for i in range(8)])
    rates = [block.drop_rate for block in build_bottom_up(load_config(CONFIG, [*keys, 3])).blocks()]
    assert rates == pytest.approx([0, 0, 0, 0, *(0.7 * i / 7 for i in range(4, 8))])


def test_a_network_without_it_is_refused():
    keys = ["MODEL.RESNETS.STOCHASTIC_DEPTH", 0.1]
    with pytest.raises(ConfigError, match=r"se_bn_inception does not read MODEL\.RESNETS\.STOCHASTIC_DEPTH"):
        build_bottom_up(load_config("configs/mask_rcnn_se_bn_inception_fpn.yaml", keys))
