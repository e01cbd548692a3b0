"""Winograd's convolution against the direct one."""

import copy

import pytest
import torch
from torch.nn import functional as F

from se_det.layers import winograd
from se_det.layers.conv import Conv2d
from se_det.layers.deform_conv import DeformConv2d
from se_det.layers.fuse import fuse_for_inference, pack_convolutions
from se_det.layers.onednn import PackedConv2d
from se_det.layers.valid_area import ValidArea
from se_det.layers.winograd import WinogradConv2d, supports_winograd


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CELLS", 1)
    monkeypatch.setattr(winograd, "LEAST_CELLS_PER_CHANNEL", 0)


def winograd_conv(out_channels=128, **options):
    conv = Conv2d(128, out_channels, 3, padding=1, **options)
    pack_convolutions(conv)
    assert isinstance(conv.packed, WinogradConv2d)
    return conv


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (16, 20), (19, 33)])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("tiles", [128, 4])
def test_equals_the_direct_convolution(images, size, tiles, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)
    torch.manual_seed(0)
    conv = winograd_conv(144, bias=images == 1)
    x = torch.randn(images, 128, *size)
    bias = None if conv.bias is None else conv.bias.double()
    expected = F.conv2d(x.double(), conv.weight.double(), bias, padding=1)
    residual = torch.randn(expected.shape)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        for got, wanted in (
            (conv(given), expected),
            (conv.forward_relu(given), F.relu(expected)),
            (conv.forward_relu(given, residual=residual), F.relu(expected + residual)),
        ):
            assert got.shape == wanted.shape and got.is_contiguous(memory_format=torch.channels_last)
            assert float((got - wanted).abs().max() / expected.abs().max()) < 2e-5


@torch.no_grad()
def test_other_weights_are_transformed_anew():
    conv = winograd_conv()
    x = torch.randn(1, 128, 12, 12)
    before = conv(x)
    twice = copy.deepcopy(conv)
    twice.load_state_dict({"weight": conv.weight * 2, "bias": conv.bias * 2})
    assert torch.allclose(twice(x), before * 2, atol=1e-4)
    conv.load_state_dict(twice.state_dict())
    assert torch.allclose(conv(x), before * 2, atol=1e-4)


@torch.no_grad()
def test_zeroes_outside_each_image_under_padding_exact():
    conv = winograd_conv()
    x = torch.randn(2, 128, 12, 12)
    alone = conv(x[1:, :, :8, :5])
    beside = conv(x, ValidArea.from_sizes([(12, 12), (8, 5)], exact=True))[1:, :, :8, :5]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_gradients_and_small_maps_take_the_direct_way(monkeypatch):
    conv = winograd_conv()
    plain = Conv2d(128, 128, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(1, 128, 9, 9, requires_grad=True)
    assert torch.equal(conv(x), plain(x))
    monkeypatch.setattr(winograd, "LEAST_CELLS", 100)
    with torch.no_grad():
        assert torch.equal(conv.forward_relu(x), PackedConv2d(plain)(x, relu=True))


@torch.no_grad()
def test_in_another_type_it_is_the_plain_convolution():
    conv = fuse_for_inference(winograd_conv())
    x = torch.randn(1, 128, 9, 9).double()
    assert torch.equal(conv.double()(x), F.conv2d(x, conv.weight, conv.bias, padding=1))


@pytest.mark.parametrize(
    "conv, fits",
    [
        (Conv2d(128, 128, 3, padding=1), True),
        (Conv2d(64, 128, 3, padding=1), False),
        (Conv2d(128, 128, 3, padding=1, stride=2), False),
        (Conv2d(128, 128, 3, padding=2, dilation=2), False),
        (Conv2d(128, 128, 3, padding=1, groups=2), False),
        (Conv2d(128, 128, 1), False),
        (Conv2d(128, 128, 3, padding=1, norm="BN"), False),
        (Conv2d(128, 128, 3, padding=1).bfloat16(), False),
        (DeformConv2d(128, 128, 3, padding=1), False),
    ],
)
def test_what_suits(conv, fits):
    assert supports_winograd(conv) is fits
