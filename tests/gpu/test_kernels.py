"""Our Triton kernels, compiled for the GPU, against PyTorch's operators; tests/layers interprets them on a CPU."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torchvision import ops

from se_det.detection import build_detector
from se_det.layers.gated_sum import gated_sum, plain_sum
from se_det.layers.kernels import use_triton
from tests.detection.conftest import make_sample, small_config
from tests.detection.test_matching import random_boxes
from tests.layers.test_gated_sum import make, run

from .comparing import apart, gradients, largest, on


@pytest.fixture(autouse=True)
def kernels(device):
    pytest.importorskip("triton")
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("TRITON_INTERPRET=1 runs it on a CPU")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("norm, training", [("FrozenBN", True), ("BN", False), ("BN", True), ("GN", True)])
@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se"])
def test_every_form_of_a_blocks_end_with_every_gradient(device, gate, norm, training, layout):
    reference = make(gate, norm=norm, kernel=1).train(training)
    ours = use_triton(on(device, reference))
    x, shortcut, weights = (torch.randn(3, c, 19, 26).double() for c in (16, 32, 32))
    given = [t.to(device, torch.float32, memory_format=layout) for t in (x, shortcut)]
    expected, wanted, kept = run(plain_sum, copy.deepcopy(reference), x, shortcut, None, weights)
    result, found, buffers = run(gated_sum, ours, *given, None, weights.to(device, torch.float32))
    assert apart(result, expected) < 1e-4
    assert largest(found, wanted, floor=1e-2) < (1e-3,)
    assert largest(buffers, kept) < (1e-4,)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precisions(device, kind):
    from se_det.layers.triton_kernels import affine_relu, affine_relu_backward, cell_sums

    dtype, share = getattr(torch, kind), 1e-2
    u, shortcut, grad = (torch.randn(4, 200, 30, 41).to(dtype).to(device) for _ in range(3))
    scale = torch.rand(4, 200, 1, 1).to(dtype).to(device)
    wide = [t.double().requires_grad_() for t in (u, scale, shortcut)]
    expected = torch.relu(wide[0] * wide[1] + wide[2])
    expected.backward(grad.double())
    out = affine_relu(u, scale, None, shortcut)
    assert apart(out, expected) < share
    of_shortcut, of_u, of_scale, _ = affine_relu_backward(grad, out, u, scale)
    for found, leaf in ((of_u, wide[0]), (of_scale.view_as(scale), wide[1]), (of_shortcut, wide[2])):
        assert apart(found, leaf.grad) < share
    assert apart(cell_sums(u, u)[1], wide[0].square().sum((2, 3))) < 1e-4


def test_nms_of_many_rows(device):
    from se_det.detection.triton_nms import nms_of_rows

    length = 2000 if device.type == "cuda" else 100
    rows = torch.stack([random_boxes(length, size=60, seed=s) for s in range(6)]).to(device)
    valid = torch.rand(6, length, device=device) > 0.1
    scores = torch.arange(length, 0, -1, device=device).float()
    for boxes, there, stays in zip(rows, valid, nms_of_rows(rows, valid, 0.7)):
        at = there.nonzero()[:, 0]
        expected = set(at[ops.nms(boxes[at], scores[at], 0.7)].tolist())
        # An overlap may be rounded to the other side of the threshold, and then let others stay or go.
        assert len(expected ^ set(stays.nonzero()[:, 0].tolist())) <= 2


def test_a_step_of_a_detector(device):
    """Losses and gradients of what is trained, where nothing is left to chance but which proposals there are."""
    found = []
    for kernels in ("pytorch", "triton"):
        torch.manual_seed(0)
        model = build_detector(
            small_config(overrides=("MODEL.KERNELS", kernels, "MODEL.DEVICE", device.type, "MODEL.RESNETS.NORM", "GN"))
        )
        model.to(device, memory_format=torch.channels_last).train()
        torch.manual_seed(1)
        losses = model([make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]], seed=s) for s in (0, 1)])
        sum(losses.values()).backward()
        found.append(({k: v.detach() for k, v in losses.items()}, gradients(model)))
    for name, value in found[0][0].items():
        assert float(found[1][0][name]) == pytest.approx(float(value), rel=0.02), name
    assert found[0][1].keys() == found[1][1].keys()
    assert all(g.isfinite().all() for g in found[1][1].values())
