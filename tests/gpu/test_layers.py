"""Gates, norms, pooling, areas, the forms of a block's end, and whole trunks, against float64 on the CPU."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from se_det.backbones import create_backbone
from se_det.layers.fuse import fuse_for_inference
from se_det.layers.gated_sum import gated_sum, plain_sum
from se_det.layers.gates import gate_names, make_gate
from se_det.layers.norms import GroupNorm
from se_det.layers.pool import Pool
from se_det.layers.valid_area import ValidArea, average_grid
from tests.integrations.known_weights import fill
from tests.layers.test_gated_sum import make, run

from .comparing import SHARES, apart, arithmetic, gradients, largest, on

SIZES = [(11, 13), (8, 16), (11, 7)]
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
GATES = [name for name in gate_names() if name != "none"]


def maps(*channels: int, side: tuple[int, int] = (11, 16)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, c, *side, generator=generator, dtype=torch.float64) for c in channels]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("norm, training", [("FrozenBN", True), ("BN", False), ("BN", True), ("GN", True), ("", True)])
@pytest.mark.parametrize("gate", GATES)
def test_every_form_of_a_blocks_end_with_every_gradient(device, gate, norm, training, kernel, layout):
    reference = make(gate, norm=norm, kernel=kernel).train(training)
    ours = on(device, reference)
    x, shortcut, weights = maps(16, 32, 32)
    given = [t.to(device, torch.float32, memory_format=FORMATS[layout]) for t in (x, shortcut)]
    for area in (None, ValidArea.from_sizes(SIZES), ValidArea.from_sizes(SIZES, exact=True)):
        expected, wanted, kept = run(plain_sum, copy.deepcopy(reference), x, shortcut, area, weights)
        result, found, buffers = run(gated_sum, copy.deepcopy(ours), *given, area, weights.to(device, torch.float32))
        assert apart(result, expected) < 1e-4
        assert largest(found, wanted, floor=1e-2) < (1e-3,)  # sums over all cells
        assert largest(buffers, kept) < (1e-4,)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("gate", GATES)
def test_folded_for_inference(device, gate, images):
    layers = make(gate, norm="FrozenBN", kernel=1).eval()
    for side in (3, 10):
        x, shortcut = (t[:images] for t in maps(16, 32, side=(side, 5)))
        with torch.no_grad():
            expected = plain_sum(layers["conv"], layers["gate"], x, shortcut.clone())
            ours = fuse_for_inference(on(device, layers))
            given = [t.to(device, torch.float32).contiguous(memory_format=torch.channels_last) for t in (x, shortcut)]
            assert apart(gated_sum(ours["conv"], ours["gate"], *given), expected) < 1e-4


@pytest.mark.parametrize("gate", GATES)
def test_gates_alone(device, gate):
    torch.manual_seed(0)
    reference = make_gate(gate, 32, stage="res3", reduction=4).double().eval()
    (u,) = maps(32)
    for area in (None, ValidArea.from_sizes(SIZES)):
        found = on(device, reference)(u.to(device, torch.float32), area)
        expected = reference(u, area)
        if area is not None:  # what lies outside an image is nobody's
            found, expected = (torch.where(area.mask(t), t, 0.0) for t in (found, expected))
        assert apart(found, expected) < 1e-5


def test_areas_and_pools_and_group_norm(device):
    (x,) = maps(64)
    area = ValidArea.from_sizes(SIZES, exact=True)
    norm = GroupNorm(32, 64).double()
    torch.nn.init.normal_(norm.weight)
    functions = {
        **{f"grid {bins}": lambda t, n, bins=bins: average_grid(t, bins, area) for bins in (1, 2, 4, 8)},
        "mask": lambda t, n: area.mask(t),
        "zeros": lambda t, n: area.zero_padding(t),
        "edge": lambda t, n: area.replicate_edge(t),
        "group norm": lambda t, n: torch.where(area.mask(t), n(t, area), 0.0),
        **{
            f"{kind} pool": lambda t, n, kind=kind: Pool(kind, 3, stride=2, padding=1, count_padding=False)(t, area)[0]
            for kind in ("max", "avg")
        },
    }
    given, moved = x.to(device, torch.float32), on(device, norm)
    assert largest(
        {k: f(given, moved) for k, f in functions.items()}, {k: f(x, norm) for k, f in functions.items()}
    ) < (1e-5,)


HOSTS = [*(f"{gate}_resnet18" for gate in GATES), "se_resnext50_32x4d", "se_bn_inception"]


@functools.cache
def on_cpu(name: str):
    """A trunk, an input, its maps and the norms of its gradients, in double precision."""
    reference = fill(create_backbone(name)).double().eval()
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = reference(x)
    sum(value.square().mean() for value in expected.values()).backward()
    return reference, x, expected, {name: g.norm() for name, g in gradients(reference).items()}


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", HOSTS)
def test_trunks_forward_and_backward(device, name, kind):
    """Norms have fixed statistics, which leave errors as small as they come."""
    reference, x, expected, wanted = on_cpu(name)
    ours = on(device, reference)
    ours.zero_grad()
    with arithmetic(kind, device):
        given = x.to(device, torch.float32).contiguous(memory_format=torch.channels_last)
        found = ours(given)
        sum(value.float().square().mean() for value in found.values()).backward()
    assert largest(found, expected) < (SHARES[kind],)
    norms = {name: g.double().norm().cpu() for name, g in gradients(ours).items()}
    top = max(wanted.values())
    assert norms.keys() == wanted.keys()
    assert max(float((norms[n] - wanted[n]).abs() / top) for n in wanted) < SHARES[kind]
