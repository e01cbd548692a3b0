"""Our Triton kernels under Triton's interpreter, against PyTorch's formula; test_kernels.py runs this file."""

from __future__ import annotations

import copy
import os

import pytest
import torch

from se_det.layers.gated_sum import gated_sum, plain_sum
from se_det.layers.kernels import use_triton
from se_det.layers.triton_kernels import affine_relu, affine_relu_backward, cell_sums, scaled_sum
from tests.layers.test_gated_sum import make, run

assert os.environ.get("TRITON_INTERPRET") == "1"
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# More and fewer cells and channels than a tile has, and than one program takes.
SHAPES = [(2, 70, 9, 11), (1, 16, 1, 1), (3, 5, 20, 33)]


def maps(shape, count, layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=FORMATS[layout])
        for _ in range(count)
    ]


def near(got, wanted, share=1e-6):
    assert got.shape == wanted.shape
    assert float((got.double() - wanted.double()).abs().max()) <= share * max(float(wanted.abs().max()), 1.0)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_over_cells(shape, layout):
    a, b = maps(shape, 2, layout)
    sums, products = cell_sums(a, b)
    wide = a.double(), b.double()
    cells = shape[2] * shape[3]
    near(sums / cells, wide[0].mean((2, 3)))
    near(products / cells, (wide[0] * wide[1]).mean((2, 3)))
    alone, nothing = cell_sums(a)
    assert torch.equal(alone, sums) and nothing is None
    near(cell_sums(a[:, ::2])[0] / cells, wide[0][:, ::2].mean((2, 3)))  # which lies in neither format


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_shift_sum_and_relu_forward_and_backward(shape, layout, shifted):
    u, shortcut, grad = maps(shape, 3, layout)
    scale, shift = torch.rand(2, *shape[:2])
    wide = [t.double().requires_grad_() for t in (u, scale, shift, shortcut)]
    y, s, b, r = wide
    expected = torch.relu(y * s[:, :, None, None] + (b[:, :, None, None] if shifted else 0) + r)
    expected.backward(grad.double())
    out = affine_relu(u, scale, shift if shifted else None, shortcut)
    near(out, expected.detach())
    assert out.is_contiguous(memory_format=FORMATS[layout])
    of_shortcut, of_u, of_scale, of_shift = affine_relu_backward(grad, out, u, scale)
    near(of_shortcut, r.grad)
    near(of_u, y.grad)
    cells = shape[2] * shape[3]
    near(of_scale / cells, s.grad / cells)
    if shifted:
        near(of_shift / cells, b.grad / cells)
    assert affine_relu_backward(grad, out, u, None)[1] is None


def test_a_value_that_is_not_a_number_stays_one():
    u, shortcut = maps((1, 4, 3, 3), 2, "nhwc")
    u[0, 1, 2, 2] = torch.nan
    out = affine_relu(u, torch.ones(1, 4), None, shortcut)
    assert out[0, 1, 2, 2].isnan() and out.isnan().sum() == 1


def test_half_precision_is_rounded_once():
    """In float16: to bfloat16 the interpreter cuts off where a GPU rounds."""
    u, shortcut = maps((2, 24, 7, 5), 2, "nhwc", torch.float16)
    scale = torch.rand(2, 24, 1, 1).half()
    exact = torch.relu(u.double() * scale.double() + shortcut.double())
    assert (scaled_sum(u, scale, shortcut) != exact.half()).sum() <= 1


@pytest.mark.parametrize("norm, training", [("FrozenBN", True), ("BN", False), ("BN", True), ("GN", True)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("gate", ["se", "sp_se"])
def test_every_form_of_a_blocks_end_with_every_gradient(gate, kernel, norm, training):
    reference = make(gate, norm=norm, kernel=kernel).train(training)
    ours = use_triton(copy.deepcopy(reference).float())
    x, shortcut, weights = (torch.randn(2, c, 9, 12).double() for c in (16, 32, 32))
    expected, wanted, kept = run(plain_sum, reference, x, shortcut, None, weights)
    given = [t.float().contiguous(memory_format=torch.channels_last) for t in (x, shortcut)]
    result, found, buffers = run(gated_sum, ours, *given, None, weights.float())
    near(
        result, expected, 1e-5
    )  # whose convolution is rounded, too; sums over all cells, and norms of two values, more
    top = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert float((found[name].double() - gradient).abs().max()) <= 1e-4 * top, name
    for name, value in kept.items():
        near(buffers[name], value, 1e-5)
    with torch.no_grad():
        expected = plain_sum(reference["conv"], reference["gate"], x, shortcut.clone())
        near(gated_sum(ours["conv"], ours["gate"], *given), expected, 1e-5)
