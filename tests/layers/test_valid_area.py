"""Areas of images in padded batches, against PyTorch's own operations on unpadded maps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from se_det.layers.norms import FrozenBatchNorm2d, GroupNorm, get_descriptor_norm, get_norm
from se_det.layers.valid_area import ValidArea, average_grid, output_size

OPERATIONS = [(7, 2, 3, 1, False), (3, 2, 1, 1, False), (3, 2, 0, 1, True), (1, 2, 0, 1, False), (3, 1, 2, 2, False)]


@pytest.mark.parametrize("kernel, stride, padding, dilation, ceil_mode", OPERATIONS)
def test_output_size_is_pytorchs(kernel, stride, padding, dilation, ceil_mode):
    for size in range(7, 80):
        result = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, min(padding, kernel // 2), dilation, ceil_mode)
        expected = output_size(size, kernel, stride, min(padding, kernel // 2), dilation, ceil_mode=ceil_mode)
        assert result.shape[-1] == expected


def test_a_ceil_mode_stem_pool_differs_from_rounding_up():
    # Half of all heights: 112 cells give 56 both ways, 113 give 56 and 57.
    assert output_size(112, 3, 2, 0, ceil_mode=True) == 56 == output_size(112, 3, 2, 1)
    assert output_size(113, 3, 2, 0, ceil_mode=True) == 56 != output_size(113, 3, 2, 1)


@pytest.mark.parametrize("bins", [1, 2, 4, 8])
def test_grid_is_adaptive_pooling_of_the_image_alone(bins):
    for height, width in ((3, 11), (8, 16), (13, 5)):
        x = torch.randn(1, 4, 16, 20)
        x[..., height:, :] = torch.nan  # what lies outside must not matter, whatever it is
        x[..., width:] = torch.inf
        expected = F.adaptive_avg_pool2d(x[..., :height, :width], bins)
        result = average_grid(x, bins, ValidArea.from_sizes([(height, width)]))
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_edge_is_repeated_outwards():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    expected = torch.tensor([[0, 1, 1, 1], [4, 5, 5, 5], [4, 5, 5, 5]]).float().view(1, 1, 3, 4)
    assert torch.equal(ValidArea.from_sizes([(2, 2)]).replicate_edge(x), expected)


def test_group_norm_over_the_valid_area_is_that_of_the_image_alone():
    norm = GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 8, 9, 9)
    area = ValidArea.from_sizes([(5, 7), (9, 9)])
    alone = torch.nn.GroupNorm.forward(norm, x[:1, :, :5, :7])
    torch.testing.assert_close(norm(x, area)[:1, :, :5, :7], alone, rtol=1e-5, atol=1e-5)


def test_frozen_batch_norm_is_batch_norm_in_evaluation():
    norm = torch.nn.BatchNorm2d(6)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        torch.nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(FrozenBatchNorm2d.from_batch_norm(norm)(x), norm.eval()(x))


def test_descriptor_norm_under_gn_has_one_group():
    # 32 groups over 64 channels of one cell would yield only +-1.
    assert get_descriptor_norm("GN", 64).num_groups == 1
    assert get_norm("GN", 64).num_groups == 32
