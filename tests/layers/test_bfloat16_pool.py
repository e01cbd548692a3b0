"""The stem's maximum in bfloat16 beside PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from se_det.layers import bfloat16_pool
from se_det.layers.bfloat16_pool import max_pool_3x3


@torch.no_grad()
@pytest.mark.parametrize("band", [2**18, 64])
@pytest.mark.parametrize("sides", [(2, 2), (2, 8), (12, 10), (14, 6), (7, 8), (8, 7)])
def test_equals_pytorchs(sides, band, monkeypatch):
    monkeypatch.setattr(bfloat16_pool, "BAND", band)
    torch.manual_seed(0)
    x = torch.randn(2, 4, *sides).relu().bfloat16()
    x[0, 0, 0, 1], x[1, 2, 1, 0] = torch.inf, 3e38
    for layout in (torch.channels_last, torch.contiguous_format):
        given = x.contiguous(memory_format=layout)
        for padding, ceil_mode in ((1, False), (0, True)):
            got = max_pool_3x3(given, padding=padding, ceil_mode=ceil_mode)
            assert torch.equal(got, F.max_pool2d(given, 3, 2, padding, ceil_mode=ceil_mode))


def test_gradients_come_from_pytorchs():
    x = torch.rand(1, 4, 6, 8).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    max_pool_3x3(x, padding=1, ceil_mode=False).sum().backward()
    assert x.grad.sum() == 4 * 3 * 4
