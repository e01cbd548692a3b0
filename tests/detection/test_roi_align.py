"""Our RoIAlign on a CPU against torchvision's operator, with gradients."""

import pytest
import torch
from torchvision import ops

from se_det.detection.roi_align import roi_align


def boxes(n, height, width, seed=0):
    torch.manual_seed(seed)
    corner = torch.rand(n, 2) * torch.tensor([width, height]) * 1.2 - 10
    size = torch.exp(torch.rand(n, 2) * 6 - 0.5)  # 0.6 to 240 px, of all shapes
    return torch.cat([torch.randint(0, 2, (n, 1)).float(), corner, corner + size], 1)


ODD = torch.tensor(
    [
        [0, 0, 0, 64, 48],  # the whole map
        [1, 10, 10, 10, 10],  # empty
        [1, -500, -500, -400, -400],  # outside
        [0, 60, 44, 500, 400],  # mostly outside
        [1, 0, 20, 64, 20.01],  # a line
        [0, 63.99, 47.99, 64, 48],  # the last corner
    ]
).float()


@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("size, scale", [(7, 1 / 4), (14, 1 / 8), (3, 1.0)])
@pytest.mark.parametrize("aligned", [True, False])
def test_equals_torchvision_with_gradients(size, scale, ratio, fmt, aligned):
    height, width = int(48 * scale), int(64 * scale)
    x = torch.randn(2, 5, height, width, dtype=torch.float64).contiguous(memory_format=fmt)
    rois = torch.cat([boxes(60, 48, 64), ODD]).double()
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = roi_align(mine, rois, size, scale, ratio, aligned=aligned)
    expected = ops.roi_align(theirs, rois, size, scale, ratio, aligned=aligned)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, atol=1e-12)
    weights = torch.randn_like(expected)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-11)


def test_single_precision_and_no_boxes():
    x = torch.randn(2, 8, 40, 60)
    rois = boxes(300, 160, 240)
    assert (roi_align(x, rois, 7, 0.25) - ops.roi_align(x, rois, 7, 0.25, 0, aligned=True)).abs().max() < 2e-5
    assert roi_align(x, rois[:0], 7, 0.25).shape == (0, 8, 7, 7)


def test_long_boxes_do_not_need_more_memory_than_their_own_windows():
    """One box across the map in each direction beside many small ones: padded to the largest window in both
    directions the weights alone would take 3 GB."""
    x = torch.randn(1, 1, 400, 400)
    small = torch.rand(1000, 2) * 1500
    rois = torch.cat([torch.zeros(1000, 1), small, small + 40], 1)
    rois = torch.cat([rois, torch.tensor([[0, 0, 0, 1600, 4.0], [0, 0, 0, 4, 1600.0]])])
    got = roi_align(x, rois, 7, 0.25)
    assert torch.allclose(got, ops.roi_align(x, rois, 7, 0.25, 0, aligned=True), atol=1e-5)
