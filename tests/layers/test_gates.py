"""Gates against their formulas, written out with other means than the code under test."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from se_det.errors import ConfigError
from se_det.layers.gates import CBAM, RG_GRIDS, RGSE, SE, SPSE, make_gate
from se_det.layers.valid_area import ValidArea

GATES = {
    "se": lambda norm: SE(32, reduction=4),
    "sp_se": lambda norm: SPSE(32, reduction=4, norm=norm),
    "rg_se": lambda norm: RGSE(32, grid=4, reduction=4, norm=norm),
    "rg_se res5": lambda norm: RGSE(32, grid=1, reduction=4, norm=norm),
    "cbam": lambda norm: CBAM(32, reduction=4, norm=norm),
}


def lively(gate: nn.Module) -> nn.Module:
    """Norm statistics and affines away from their neutral values."""
    generator = torch.Generator().manual_seed(3)
    for module in gate.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            for tensor in (module.weight, module.bias, *module.buffers()):
                if tensor.dtype.is_floating_point:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return gate


def two_layers(gate: SE, z: torch.Tensor) -> torch.Tensor:
    hidden = (z @ gate.fc1.weight.T + gate.fc1.bias).clamp(min=0)
    return hidden @ gate.fc2.weight.T + gate.fc2.bias


def test_se_is_its_formula():
    gate, u = SE(32, reduction=4), torch.randn(2, 32, 5, 7)
    s = 1 / (1 + torch.exp(-two_layers(gate, u.sum((2, 3)) / 35)))
    torch.testing.assert_close(gate(u), u * s[:, :, None, None])


def test_hidden_width_is_rounded_down():
    # SE-BN-Inception's widths: C = 320, 576, 608, 1056 at r = 16.
    assert [SE(c).fc1.out_features for c in (320, 576, 608, 1056)] == [20, 36, 38, 66]


def test_rg_on_a_224_px_image_is_a_fixed_7x7_window():
    for stage, cells in {"res2": 56, "res3": 28, "res4": 14, "res5": 7}.items():
        u = torch.randn(2, 32, cells, cells)
        gate = make_gate("rg_se", 32, stage=stage, reduction=4).eval()
        fixed = F.avg_pool2d(u, 7, 7)
        assert torch.equal(gate.squeeze(u)[0], F.adaptive_avg_pool2d(u, RG_GRIDS[stage]))
        torch.testing.assert_close(gate.squeeze(u)[0], fixed, rtol=0, atol=1e-6)


def test_rg_keeps_its_relu_in_res5():
    gate = RGSE(32, grid=1, reduction=4)
    u = torch.randn(2, 32, 3, 3)
    s = torch.sigmoid(two_layers(gate, u.mean((2, 3)).clamp(min=0)))
    torch.testing.assert_close(gate(u), u * s[:, :, None, None])


def test_sp_is_a_weighted_sum_of_21_averages():
    gate = lively(SPSE(32, reduction=4)).eval()
    u = torch.randn(2, 32, 8, 12)
    taps = [u.mean((2, 3))]
    weights = [gate.dw1.weight[:, 0, 0, 0]]
    for k, conv in ((2, gate.dw2), (4, gate.dw4)):
        h, w = 8 // k, 12 // k
        for i in range(k):
            for j in range(k):
                taps.append(u[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w].mean((2, 3)))
                weights.append(conv.weight[:, 0, i, j])
    assert len(taps) == 21
    f = sum(t * w for t, w in zip(taps, weights)) + gate.dw1.bias + gate.dw2.bias + gate.dw4.bias
    norm = gate.norm
    z = ((f - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias).clamp(min=0)
    s = torch.sigmoid(two_layers(gate, z))
    torch.testing.assert_close(gate(u), u * s[:, :, None, None])


def test_cbam_is_its_formula():
    gate = lively(CBAM(32, reduction=4)).eval()
    u = torch.randn(2, 32, 9, 6)
    s = torch.sigmoid(two_layers(gate, u.mean((2, 3))) + two_layers(gate, u.amax((2, 3))))
    u2 = u * s[:, :, None, None]
    stacked = torch.stack([u2.max(1).values, u2.mean(1)], 1)  # maximum first
    patches = F.unfold(F.pad(stacked, (3, 3, 3, 3)), 7)
    seen = (patches * gate.spatial.weight.reshape(1, -1, 1)).sum(1).view(2, 1, 9, 6)
    norm = gate.norm
    seen = (seen - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(gate(u), u2 * torch.sigmoid(seen), rtol=1e-4, atol=1e-5)


def test_cbam_spatial_norm_starts_at_zero_with_slow_statistics():
    gate = CBAM(32)
    assert gate.norm.weight.item() == 0 and gate.norm.momentum == 0.01 and gate.norm.num_features == 1


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("sizes", [None, ((4, 5), (6, 3))])
def test_gradients(name, sizes):
    gate = lively(GATES[name]("BN")).double().eval()
    u = torch.randn(2, 32, 6, 5, dtype=torch.float64, requires_grad=True)
    area = None if sizes is None else ValidArea.from_sizes(sizes)
    parameters = tuple(gate.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: gate(x, area), (u, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN"])
def test_squeeze_does_not_see_padding(name, norm):
    gate = lively(GATES[name](norm)).eval()
    alone = torch.randn(1, 32, 7, 9)
    padded = F.pad(alone, (0, 4, 0, 2), value=3.0)
    batch = torch.cat([padded, torch.randn(1, 32, 9, 13)])
    area = ValidArea.from_sizes([(7, 9), (9, 13)])
    grids = gate.squeeze(batch, area)
    torch.testing.assert_close([g[:1] for g in grids], gate.squeeze(alone), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gate(batch, area)[:1, :, :7, :9], gate(alone), rtol=1e-5, atol=1e-6)
    kept = gate(batch)[:1, :, :7, :9]
    assert (kept - gate(alone)).abs().max() > 1e-3  # without the area the padding counts


def test_leaving_the_function_unchanged_is_a_factor_of_one_half():
    u = torch.randn(2, 32, 5, 5)
    for name in ("se", "sp_se", "rg_se"):
        gate = GATES[name]("BN")
        gate.zero_init()
        assert torch.equal(gate(u), u * 0.5)
    with pytest.raises(ConfigError, match="INIT"):
        GATES["cbam"]("BN").zero_init()


def test_unknown_gate_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'sp_se'"):
        make_gate("sp-se", 32, stage="res2")
    with pytest.raises(ConfigError, match="REDUCTION 64"):
        make_gate("se", 32, stage="res2", reduction=64)
