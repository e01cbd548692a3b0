"""Convolutions with their weights laid out once, and what follows inside, beside PyTorch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from se_det.backbones import create_backbone
from se_det.errors import DataError, WeightsError
from se_det.internals.mkldnn import is_available
from se_det.layers.conv import Conv2d
from se_det.layers.fuse import fuse_for_inference, pack_convolutions
from se_det.layers.gates import RGSE, SE
from se_det.layers.norms import FrozenBatchNorm2d
from se_det.layers.packed_gate import has_packed_form, packed_factors
from se_det.layers.valid_area import ValidArea

pytestmark = pytest.mark.skipif(not is_available(), reason="needs a PyTorch with oneDNN's operators")

KINDS = [
    (1, {}),
    (3, {"padding": 1}),
    (3, {"padding": 1, "stride": 2}),
    (3, {"padding": 2, "dilation": 2}),
    (3, {"padding": 1, "groups": 4}),
    (7, {"padding": 3, "stride": 2}),
    ((1, 7), {"padding": (0, 3)}),
]


def packed_pair(kernel, options, bias=True):
    torch.manual_seed(0)
    conv = Conv2d(16, 32, kernel, bias=bias, **options).requires_grad_(False).to(memory_format=torch.channels_last)
    packed = copy.deepcopy(conv)
    pack_convolutions(packed)
    return conv, packed


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel, options", KINDS)
def test_equals_the_plain_convolution(kernel, options, bias):
    conv, packed = packed_pair(kernel, options, bias)
    sizes = (1, 16, 20, 24), (3, 16, 9, 11), (1, 16, 33, 40)
    for size in (sizes[i] for i in (0, 0, 1, 0, 1, 1, 2, 2)):  # a small size that repeats is laid out for
        for layout in (torch.channels_last, torch.contiguous_format):
            x = torch.randn(size).contiguous(memory_format=layout)
            want = conv(x)
            residual = torch.randn_like(want).contiguous(memory_format=layout)
            kept = residual.clone()
            torch.testing.assert_close(packed(x), want, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(packed.forward_relu(x), F.relu(want), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                packed.forward_relu(x, residual=residual), F.relu(want + residual), rtol=1e-5, atol=1e-5
            )
            assert torch.equal(residual, kept)
            torch.testing.assert_close(
                packed.forward_relu(x, residual=kept.clone(), overwrite=True), F.relu(want + kept), rtol=1e-5, atol=1e-5
            )
            torch.testing.assert_close(packed.forward_add(x, residual=kept), want + residual, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_reads_zeros_outside_an_image():
    conv, packed = packed_pair(3, {"padding": 1})
    area = ValidArea.from_sizes([(5, 6)], exact=True)
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(packed(x, area), conv(x, area), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(packed(x, area), packed(x))


def test_gradients_come_from_the_plain_convolution():
    conv, packed = packed_pair(3, {"padding": 1})
    x = torch.randn(1, 16, 6, 6, requires_grad=True)
    (of_packed,) = torch.autograd.grad(packed.forward_relu(x).square().sum(), x)
    (of_plain,) = torch.autograd.grad(F.relu(conv(x)).square().sum(), x)
    assert torch.equal(of_packed, of_plain)


@torch.no_grad()
def test_autocast_decides_the_precision():
    conv, packed = packed_pair(3, {"padding": 1})
    x = torch.randn(1, 16, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(x).dtype == packed.forward_relu(x).dtype == conv(x).dtype == torch.bfloat16


@torch.no_grad()
def test_other_weights_are_laid_out_anew():
    conv, packed = packed_pair(3, {"padding": 1})
    x = torch.randn(1, 16, 6, 6)
    before = [packed(x) for _ in range(3)][-1]
    twin = copy.deepcopy(packed)
    packed.load_state_dict({"weight": conv.weight * 2, "bias": conv.bias * 2})
    for _ in range(3):
        torch.testing.assert_close(packed(x), before * 2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twin(x), before, rtol=1e-5, atol=1e-5)
    assert twin.packed is not packed.packed
    packed.double()
    torch.testing.assert_close(packed(x.double()).float(), before * 2, rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_is_refused():
    """oneDNN's ReLU would make zeros of it."""
    model = create_backbone("se_resnet18", norm="BN")
    sound = copy.deepcopy(model)
    with torch.no_grad():
        model.res2[0].conv1.weight[0] = torch.nan
    with pytest.raises(WeightsError, match=r"weights of res2\.0\.conv1\.weight are not finite"):
        fuse_for_inference(model)
    x = torch.randn(1, 3, 64, 64)
    x[0, 0, 5, 6] = torch.inf
    with pytest.raises(DataError, match="image given to the network holds values that are not finite"), torch.no_grad():
        fuse_for_inference(sound)(x)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet50", "se_resnet50"])
def test_a_map_that_somebody_keeps_is_not_written_over(name):
    torch.manual_seed(0)
    model = fuse_for_inference(create_backbone(name, norm="FrozenBN"))
    x = torch.randn(1, 3, 64, 64)
    want = model(x)
    written, given = [], torch.randn_like(want["res2"])
    for block in model.res2:
        block.register_forward_hook(lambda block, taken, given: written.append((given[0], given[0].clone())))
    model.res3[0].shortcut.register_forward_hook(lambda conv, taken, y: written.append((y, y.clone())))
    again = model(x)
    assert len(written) == 4 and all(torch.equal(map, copy) for map, copy in written)
    for stage, result in want.items():
        torch.testing.assert_close(again[stage], result)
    kept = given.clone()
    model.res2[1](given)  # by itself, of a map of the caller's
    model.res2(x.new_ones(1, 64, 16, 16))
    assert torch.equal(given, kept)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_gates_first_layer_is_one_matrix_with_the_convolution(bias):
    torch.manual_seed(0)
    conv, gate = Conv2d(16, 64, 1, bias=bias), SE(64, reduction=4, bias=bias)
    x = torch.randn(2, 16, 9, 7)
    for area in (None, ValidArea.from_sizes([(9, 7), (4, 5)])):
        for _ in range(2):
            want = gate.scale(gate.squeeze(conv(x), area))
            torch.testing.assert_close(packed_factors(conv, gate, x, area), want)
            gate.fc1.weight.mul_(2)  # other weights
    assert has_packed_form(gate) and not has_packed_form(RGSE(64, grid=1))
    gate.scale = lambda grids: None  # as who records activations does
    assert not has_packed_form(gate)


def test_works_where_weights_have_no_versions():
    with torch.inference_mode():
        conv, packed = packed_pair(1, {})
        x = torch.randn(1, 16, 6, 6)
        for _ in range(3):
            torch.testing.assert_close(packed(x), conv(x), rtol=1e-5, atol=1e-5)


NETWORKS = (
    "resnet50", "sp_se_resnet50", "rg_se_resnet50", "cbam_resnet50", "cbam_resnet18", "se_resnet18", "se_resnet50",
    "se_resnext50_32x4d", "senet154", "se_vgg16_bn", "se_bn_inception", "se_inception_resnet_v2", "se_mobilenet_v1",
    "se_shufflenet_v1",
)  # fmt: skip
LARGE = ("senet154", "se_vgg16_bn", "se_inception_resnet_v2")


@torch.no_grad()
@pytest.mark.parametrize("name, batch", [
    pytest.param(name, batch, marks=pytest.mark.slow if batch == 1 and name in LARGE else ())
    for name in NETWORKS for batch in (1, 2)
])  # fmt: skip
def test_a_whole_network_gives_what_it_gave(name, batch):
    torch.manual_seed(0)
    model = create_backbone(name, norm="BN").eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.8, 1.2)
            module.bias.normal_(0, 0.1)
    x = torch.randn(batch, 3, 97, 130)
    want = model(x)
    fused = fuse_for_inference(model)
    assert any(getattr(m, "packed", None) is not None for m in fused.modules())
    for given in (x, x.contiguous(memory_format=torch.channels_last), x):
        for stage, result in fused(given).items():
            assert float((result - want[stage]).abs().max() / want[stage].abs().max()) < 1e-4, stage
