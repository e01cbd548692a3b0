"""Strided 1 x 1 convolutions of few channels do not reach the backward pass of PyTorch's that crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from se_det.layers.conv import Conv2d

ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import torch
from se_det.layers.conv import Conv2d
torch.set_num_threads(1)
for norm in ("", "GN", "FrozenBN"):
    for channels in (1, 2, 3, 4, 5, 6, 7, 8, 12, 15):
        for size in ((8, 8), (16, 16), (12, 16), (40, 56)):
            conv = Conv2d(channels, 32, 1, stride=2, norm=norm).to(memory_format=torch.channels_last)
            x = torch.randn(2, channels, *size).to(memory_format=torch.channels_last).requires_grad_()
            conv(x).sum().backward()
print("whole")
"""


def test_training_them_does_not_end_the_process():
    done = subprocess.run([sys.executable, "-c", STEPS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "whole\n", done.stderr[-500:]


@pytest.mark.parametrize("channels, stride", [(4, 2), (12, 2), (4, 3), (16, 2), (4, 1)])
@pytest.mark.parametrize("size", [(9, 8), (16, 16)])
def test_they_compute_the_same(channels, stride, size):
    torch.manual_seed(0)
    conv = Conv2d(channels, 6, 1, stride=stride, bias=True).double()
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    mine, theirs = conv(x), F.conv2d(x, conv.weight, conv.bias, stride)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(mine)
    for one, other in zip(*(torch.autograd.grad((y * weight).sum(), (x, *conv.parameters())) for y in (mine, theirs))):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
