"""Convolutions over few cells as matrix products: the same numbers and gradients as PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from se_det.layers.conv import Conv2d
from se_det.layers.small_maps import CELLS_PER_CHANNEL, convolve_by_product, takes_product


def bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("norm", ["", "BN", "FrozenBN"])
@pytest.mark.parametrize("size, stride, padding", [((2, 2), 1, 1), ((4, 3), 2, 1), ((5, 7), 3, 2), ((3, 5), 2, 0)])
def test_values_and_gradients_are_those_of_float64(norm, size, stride, padding):
    torch.manual_seed(0)
    conv = Conv2d(128, 136, 3, stride=stride, padding=padding, norm=norm, bias=True)
    x = torch.randn(6, 128, *size).bfloat16().float().requires_grad_()
    with bfloat16():
        assert takes_product(conv, x)
        y = conv(x)
    wave = torch.randn_like(y, dtype=torch.float32)
    y.backward(wave.to(y.dtype))
    found = [y, x.grad, conv.weight.grad, conv.bias.grad]
    exact, x64 = conv.double(), x.detach().double().requires_grad_()
    conv.weight.grad = conv.bias.grad = None
    y64 = exact(x64)
    y64.backward(wave.double())
    for value, true in zip(found, [y64, x64.grad, conv.weight.grad, conv.bias.grad]):
        if norm == "BN" and value is found[3]:
            continue  # a bias before a batch norm changes nothing: its gradient is rounding
        assert (value.double() - true).norm() < 0.03 * true.norm()


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 1, 2), (3, 3, 0)])
def test_it_rounds_no_more_than_pytorch(kernel, stride, padding):
    torch.manual_seed(0)
    x, weight = torch.randn(3, 130, 6, 5).bfloat16(), torch.randn(140, 130, kernel, kernel).bfloat16()
    stride, padding = (stride, stride), (padding, padding)
    true = F.conv2d(x.double(), weight.double(), None, stride, padding)
    errors = []
    for convolve in (F.conv2d, convolve_by_product):
        left, right = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = convolve(left, right, None, stride, padding)
        assert y.shape == true.shape and y.dtype == torch.bfloat16
        errors.append((y.double() - true).norm() / true.norm())
    assert errors[1] < 1.1 * errors[0] + 1e-4


def test_where_it_is_taken():
    conv, x = Conv2d(128, 128, 3, padding=1), torch.randn(4, 128, 4, 4)
    assert not takes_product(conv, x)  # float32
    with bfloat16():
        assert takes_product(conv, x)
        assert not takes_product(Conv2d(128, 128, 1), x)
        assert not takes_product(Conv2d(64, 128, 3, padding=1), x[:, :64])
        assert not takes_product(Conv2d(128, 128, 3, padding=1, groups=2), x)
        assert not takes_product(Conv2d(128, 128, 3, padding=2, dilation=2), x)
        assert not takes_product(conv, torch.randn(CELLS_PER_CHANNEL * 128 // 16 + 1, 128, 4, 4))
        with torch.no_grad():
            assert not takes_product(conv, x)


def test_a_frozen_weight_or_input_has_no_gradient():
    conv, x = Conv2d(128, 128, 3, padding=1), torch.randn(1, 128, 4, 4)
    with bfloat16():
        conv(x).sum().backward()
        assert x.grad is None and conv.weight.grad is not None
        conv.requires_grad_(False)
        conv.weight.grad = None
        conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None and conv.weight.grad is None
