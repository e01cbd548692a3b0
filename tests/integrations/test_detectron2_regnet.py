"""RegNets against Detectron2's on the same weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem

from se_det.backbones import create_backbone
from se_det.backbones.catalog import REGNET_X, REGNET_Y
from se_det.weights import load_weights
from tests.weights.family_cases import with_random_statistics

pytestmark = pytest.mark.detectron2


@pytest.mark.parametrize(("kind", "size"), [("x", size) for size in REGNET_X] + [("y", size) for size in REGNET_Y])
def test_features_are_detectron2s(kind, size, tmp_path):
    arguments = {"x": REGNET_X, "y": REGNET_Y}[kind][size]
    theirs = RegNet(
        stem_class=SimpleStem, stem_width=32, block_class=ResBottleneckBlock, se_ratio=0.25 if kind == "y" else 0.0,
        out_features=["s1", "s2", "s3", "s4"], **arguments,
    )  # fmt: skip
    with_random_statistics(theirs)
    torch.save({f"backbone.bottom_up.{key}": x for key, x in theirs.state_dict().items()}, tmp_path / "theirs.pth")
    ours = create_backbone(f"regnet{kind}_{size}").eval()
    report = load_weights(ours, tmp_path / "theirs.pth", strict=True)
    assert report.missing == report.unexpected == []
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for expected, found in zip(theirs(image).values(), ours(image).values(), strict=True):
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
