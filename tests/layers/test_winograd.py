"""Winograd's convolution against the direct one."""

import pytest
import torch
from torch.nn import functional as F

from se_det.layers import winograd
from se_det.layers.conv import Conv2d
from se_det.layers.valid_area import ValidArea
from se_det.layers.winograd import WinogradConv2d, supports_winograd


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CELLS", 1)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (16, 20), (19, 33)])
@pytest.mark.parametrize("images", [1, 2])
def test_equals_the_direct_convolution(images, size):
    torch.manual_seed(0)
    conv = Conv2d(128, 144, 3, padding=1)
    x = torch.randn(images, 128, *size)
    with torch.no_grad():
        expected = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
        for layout in (torch.contiguous_format, torch.channels_last):
            got = WinogradConv2d(conv)(x.contiguous(memory_format=layout))
            assert got.shape == expected.shape
            assert float((got - expected).abs().max() / expected.abs().max()) < 2e-5


@torch.no_grad()
def test_other_weights_are_transformed_anew():
    conv = WinogradConv2d(Conv2d(128, 128, 3, padding=1))
    x = torch.randn(1, 128, 12, 12)
    before = conv(x)
    conv.load_state_dict({"weight": conv.weight * 2, "bias": conv.bias * 2})
    assert torch.allclose(conv(x), before * 2, atol=1e-4)


def test_zeroes_outside_each_image_under_padding_exact():
    conv = WinogradConv2d(Conv2d(128, 128, 3, padding=1))
    x = torch.randn(2, 128, 12, 12)
    with torch.no_grad():
        alone = conv(x[1:, :, :8, :5])
        beside = conv(x, ValidArea.from_sizes([(12, 12), (8, 5)], exact=True))[1:, :, :8, :5]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_gradients_and_small_maps_take_the_direct_way(monkeypatch):
    plain = Conv2d(128, 128, 3, padding=1)
    conv = WinogradConv2d(plain)
    x = torch.randn(1, 128, 9, 9, requires_grad=True)
    assert torch.equal(conv(x), plain(x))
    monkeypatch.setattr(winograd, "LEAST_CELLS", 100)
    with torch.no_grad():
        assert torch.equal(conv(x), plain(x))


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
    ],
)
def test_what_suits(conv, fits):
    assert supports_winograd(conv) is fits
