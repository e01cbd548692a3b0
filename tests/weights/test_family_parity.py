"""Weights drawn at random go through the converters and give the same logits as in the network they came from."""

from __future__ import annotations

import pytest
import torch
from family_cases import (
    CAFFE,
    CAFFE_BASIC,
    CAFFE_NEXT,
    SIZES,
    as_file,
    largest_difference,
    ours_with,
    with_random_statistics,
)

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

slow = pytest.mark.slow
TIMM = [
    ("legacy_seresnet18", "se_resnet18", CAFFE_BASIC),
    ("seresnet18", "se_resnet18", {}),
    pytest.param("seresnet34", "se_resnet34", {}, marks=slow),
    pytest.param("legacy_seresnet34", "se_resnet34", CAFFE_BASIC, marks=slow),
    ("legacy_seresnet50", "se_resnet50", CAFFE),
    pytest.param("legacy_seresnext50_32x4d", "se_resnext50_32x4d", CAFFE_NEXT, marks=slow),
    pytest.param("seresnet50", "se_resnet50", {}, marks=slow),
    ("seresnext50_32x4d", "se_resnext50_32x4d", {}),
    pytest.param("legacy_seresnet101", "se_resnet101", CAFFE, marks=slow),
    pytest.param("legacy_seresnet152", "se_resnet152", CAFFE, marks=slow),
    pytest.param("legacy_seresnext101_32x4d", "se_resnext101_32x4d", CAFFE_NEXT, marks=slow),
    pytest.param("legacy_senet154", "senet154", {}, marks=slow),
    pytest.param("seresnext101_32x4d", "se_resnext101_32x4d", {}, marks=slow),
    pytest.param("seresnet152", "se_resnet152", {}, marks=slow),
    pytest.param("vgg16_bn", "vgg16_bn", {}, marks=slow),
    pytest.param("resnext50_32x4d", "resnext50_32x4d", {}, marks=slow),
]


@pytest.mark.parametrize(("theirs", "ours", "options"), TIMM)
def test_timm(theirs, ours, options):
    torch.manual_seed(0)
    network = with_random_statistics(timm.create_model(theirs, pretrained=False))
    ours = ours_with(as_file(network.state_dict()), ours, **options)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in network.parameters())
    for size in SIZES:
        difference = largest_difference(ours, network, size)
        print(f"{theirs} {size}: {difference:.1e}")
        assert difference < 1e-5


def test_torchvision():
    torch.manual_seed(0)
    network = with_random_statistics(torchvision.models.resnet50())
    ours = ours_with(as_file(network.state_dict()), "resnet50")
    for size in SIZES:
        difference = largest_difference(ours, network, size)
        print(f"torchvision resnet50 {size}: {difference:.1e}")
        assert difference < 1e-5


@pytest.mark.slow
def test_torchvision_vgg():
    torch.manual_seed(0)
    network = with_random_statistics(torchvision.models.vgg16_bn())
    ours = ours_with(as_file(network.state_dict()), "vgg16_bn")
    difference = largest_difference(ours, network, (224, 224))
    print(f"torchvision vgg16_bn (224, 224): {difference:.1e}")
    assert difference < 1e-5
