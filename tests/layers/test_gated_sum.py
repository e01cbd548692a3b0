"""The forms that the end of a residual block takes, against the papers' formula on the same weights, with gradients."""

import copy
import gc

import pytest
import torch
from torch import nn

from se_det.layers import batch_statistics, folding
from se_det.layers import gated_sum as module
from se_det.layers.conv import Conv2d
from se_det.layers.gated_sum import gated_sum, plain_sum
from se_det.layers.gates import make_gate
from se_det.layers.norms import FrozenBatchNorm2d
from se_det.layers.valid_area import ValidArea

SIZES = [(11, 13), (8, 16), (11, 7)]


def make(gate, *, norm, kernel, seed=0, channels=32, stage="res3"):
    """A last convolution and its gate, in double precision, with statistics and affines that matter."""
    torch.manual_seed(seed)
    conv = Conv2d(16, channels, kernel, padding=kernel // 2, norm=norm)
    gate = make_gate(gate, channels, stage=stage, reduction=4, norm="BN" if norm in ("", "GN") else norm)
    for layer in (conv, *gate.modules()):
        layer = layer.norm if layer is conv else layer
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d):
            for name in ("weight", "running_var"):
                getattr(layer, name).data.uniform_(0.5, 2)
            for name in ("bias", "running_mean"):
                getattr(layer, name).data.normal_()
    return nn.ModuleDict({"conv": conv, "gate": gate}).double()


def run(form, layers, x, shortcut, area, weights):
    """The result, the gradient of every input and parameter, and the buffers afterwards."""
    x, shortcut = (t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, shortcut))
    out = form(layers["conv"], layers["gate"], x.mul(1.0), shortcut.mul(1.0), area)
    (out * weights).sum().backward()
    gradients = {"x": x.grad, "shortcut": shortcut.grad} | {n: p.grad for n, p in layers.named_parameters()}
    return out.detach(), gradients, dict(layers.named_buffers())


def close(got, wanted, tolerance=1e-9):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(got[name].double(), value.double(), rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("norm, training", [("FrozenBN", True), ("BN", False), ("BN", True), ("GN", True), ("", True)])
@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se", "cbam"])
def test_equals_the_formula_with_every_gradient(gate, norm, training, kernel, images, fmt):
    if training and images == 1 and norm in ("BN", "GN", "") and gate in ("sp_se", "rg_se"):
        pytest.skip("a batch norm over the (1, C, 1, 1) descriptor is refused")
    ours = make(gate, norm=norm, kernel=kernel).train(training)
    theirs = copy.deepcopy(ours)
    torch.manual_seed(1)
    x = torch.randn(images, 16, 11, 16).double().contiguous(memory_format=fmt)
    shortcut, weights = (torch.randn(images, 32, 11, 16).double().contiguous(memory_format=fmt) for _ in range(2))
    area = ValidArea.from_sizes(SIZES[:images]) if images > 1 else None
    for padded in (None, area):
        result, gradients, buffers = run(gated_sum, ours, x, shortcut, padded, weights)
        expected, wanted, kept = run(plain_sum, theirs, x, shortcut, padded, weights)
        assert torch.allclose(result, expected, rtol=1e-10, atol=1e-10)
        close(gradients, wanted)
        close(buffers, kept)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se"])
def test_gradients_on_fewer_cells_than_channels(gate, images):
    ours = make(gate, norm="FrozenBN", kernel=1)
    theirs = copy.deepcopy(ours)
    x, shortcut, weights = (torch.randn(images, c, 3, 5).double() for c in (16, 32, 32))
    result, gradients, _ = run(gated_sum, ours, x, shortcut, None, weights)
    expected, wanted, _ = run(plain_sum, theirs, x, shortcut, None, weights)
    assert torch.allclose(result, expected, rtol=1e-10, atol=1e-10)
    close(gradients, wanted)


@pytest.mark.parametrize("side", [3, 10], ids=["fewer cells than channels", "more"])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("norm, training", [("FrozenBN", False), ("BN", False)])
@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se"])
def test_without_gradients(gate, norm, training, images, side):
    layers = make(gate, norm=norm, kernel=1).train(training)
    x, shortcut = torch.randn(images, 16, side, 5).double(), torch.randn(images, 32, side, 5).double()
    kept = shortcut.clone()
    with torch.no_grad():
        assert torch.allclose(
            gated_sum(layers["conv"], layers["gate"], x, shortcut), plain_sum(layers["conv"], layers["gate"], x, kept)
        )


def test_the_folded_form_neither_writes_nor_keeps_the_wide_map(monkeypatch):
    """What it keeps besides weights and results is the narrow input: the papers' formula keeps the wide U too."""
    layers = make("se", norm="FrozenBN", kernel=1, channels=64)
    x, shortcut = torch.randn(1, 16, 20, 20).double().requires_grad_(), torch.randn(1, 64, 20, 20).double()

    def kept(form):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.setdefault(t.data_ptr(), t.numel()), lambda t: t):
            form(layers["conv"], layers["gate"], x, shortcut.clone())
        return sum(1 for size in sizes.values() if size == shortcut.numel())

    assert kept(gated_sum) == 1  # the result
    assert kept(plain_sum) >= 2


def test_batch_statistics_keep_one_wide_map_besides_the_result():
    layers = make("se", norm="BN", kernel=1, channels=64).train()
    x, shortcut = torch.randn(2, 16, 20, 20).double().requires_grad_(), torch.randn(2, 64, 20, 20).double()
    sizes = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.setdefault(t.data_ptr(), t.numel()), lambda t: t):
        out = gated_sum(layers["conv"], layers["gate"], x, shortcut)
    assert sum(size == out.numel() for size in sizes.values()) == 2  # the convolution's output and the result


def test_a_second_backward_pass_through_a_kept_graph():
    layers = make("sp_se", norm="BN", kernel=1).train()
    x, shortcut = torch.randn(2, 16, 6, 6).double(), torch.randn(2, 32, 6, 6).double()
    loss = gated_sum(layers["conv"], layers["gate"], x, shortcut).sum()
    loss.backward(retain_graph=True)
    once = layers["conv"].weight.grad.clone()
    loss.backward()
    assert torch.allclose(layers["conv"].weight.grad, 2 * once)


@pytest.mark.parametrize("norm, training", [("FrozenBN", True), ("BN", True), ("BN", False)])
def test_bfloat16_is_as_near_to_float64_as_the_formula_in_bfloat16(norm, training):
    errors = {}
    exact = make("se", norm=norm, kernel=1).train(training)
    x, shortcut, weights = (torch.randn(2, c, 14, 14).double() for c in (16, 32, 32))
    expected, wanted, _ = run(plain_sum, copy.deepcopy(exact), x, shortcut, None, weights)
    for form in (gated_sum, plain_sum):
        layers = copy.deepcopy(exact).float()
        with torch.autocast("cpu", torch.bfloat16):
            got, gradients, _ = run(form, layers, x.bfloat16(), shortcut.bfloat16(), None, weights)
        errors[form] = [
            float((got.double() - expected).norm() / expected.norm()),
            float((gradients["conv.weight"].double() - wanted["conv.weight"]).norm() / wanted["conv.weight"].norm()),
        ]
    assert all(ours <= 2 * theirs + 1e-4 for ours, theirs in zip(errors[gated_sum], errors[plain_sum])), errors


def test_an_exporter_sees_the_formula(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True, raising=False)  # PyTorch 2.6 has none
    monkeypatch.setattr(module, "plain_sum", lambda *given: "plain")
    layers = make("se", norm="FrozenBN", kernel=1)
    x = torch.zeros(1, 16, 4, 4).double()
    assert gated_sum(layers["conv"], layers["gate"], x, torch.zeros(1, 32, 4, 4).double()) == "plain"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_a_gpus_sums_of_all_images_at_once_are_those_of_each(fmt, dtype):
    z = (torch.randn(3, 8, 9, 7) * 2 + 1).to(dtype).contiguous(memory_format=fmt)
    grad = torch.randn(3, 8, 9, 7).to(dtype).contiguous(memory_format=fmt)
    wide, tolerance = z.double(), {torch.bfloat16: 1e-2, torch.float64: 1e-12}.get(dtype, 1e-5)
    for found, wanted in zip(batch_statistics._moments_at_once(z), batch_statistics._moments(z)):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        batch_statistics._moments_at_once(z)[1].double(), wide.var((2, 3), correction=0), rtol=1e-5, atol=1e-5
    )
    of_scale, of_shift = batch_statistics._sums_at_once(grad, z)
    exact = (grad.double() * wide).sum((2, 3), keepdim=True)
    assert float((of_scale - exact).abs().max()) < tolerance * float((grad.double() * wide).abs().sum((2, 3)).max())
    torch.testing.assert_close(of_shift.double(), grad.double().sum((2, 3), keepdim=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", ["se", "sp_se"])
def test_the_folded_form_may_keep_u_as_on_a_gpu(gate, monkeypatch):
    monkeypatch.setattr(folding, "_keeps_u", lambda x: True)
    ours = make(gate, norm="FrozenBN", kernel=1)
    theirs = copy.deepcopy(ours)
    x, shortcut, weights = (torch.randn(3, c, 9, 8).double() for c in (16, 32, 32))
    result, gradients, _ = run(gated_sum, ours, x, shortcut, None, weights)
    expected, wanted, _ = run(plain_sum, theirs, x, shortcut, None, weights)
    assert torch.allclose(result, expected, rtol=1e-10, atol=1e-10)
    close(gradients, wanted)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_nothing_is_left_of_a_step(norm):
    """Tensors that hold each other through the autograd graph are never freed."""
    layers = make("sp_se", norm=norm, kernel=1)
    x, shortcut = torch.randn(2, 16, 6, 6).double().requires_grad_(), torch.randn(2, 32, 6, 6).double()
    alive = []
    for _ in range(3):
        gated_sum(layers["conv"], layers["gate"], x, shortcut.clone()).sum().backward()
        gc.collect()
        alive.append(sum(type(thing) in (torch.Tensor, nn.Parameter) for thing in gc.get_objects()))
    assert alive[2] <= alive[1]
