"""What compilers are told of sizes that the graph computes, beside what is so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import sympy
import torch
from torch._subclasses import FakeTensorMode, fake_impls
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from se_det.internals.aot_inductor import convolutions_keep_their_layout, reshapes_assume_nothing

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


def convolved(x: torch.Tensor, kernel: int, layout: torch.memory_format, transposed: bool) -> torch.Tensor:
    weight = torch.ones(16, 16, kernel, kernel).contiguous(memory_format=layout)
    pad = [kernel // 2] * 2
    return torch.ops.aten.convolution(x, weight, None, [1, 1], pad, [1, 1], transposed, [0, 0], 1)


def image(height: int, width: int, layout: torch.memory_format) -> torch.Tensor:
    if layout == CHANNELS_LAST:
        return torch.ones(2, height, width, 16).permute(0, 3, 1, 2)
    return torch.ones(2, 16, height, width)


@pytest.mark.parametrize("of_image", [CONTIGUOUS, CHANNELS_LAST])
@pytest.mark.parametrize("of_weight", [CONTIGUOUS, CHANNELS_LAST])
@pytest.mark.parametrize(("kernel", "transposed"), [(1, False), (3, False), (3, True)])
def test_the_layout_is_the_one_that_comes_out(
    of_image: torch.memory_format, of_weight: torch.memory_format, kernel: int, transposed: bool
) -> None:
    """Without, PyTorch 2.14 says contiguous of all, and a compiled detector finds other boxes."""
    known = convolved(image(5, 7, of_image), kernel, of_weight, transposed)
    sides = ShapeEnv()
    with FakeTensorMode(shape_env=sides), convolutions_keep_their_layout():
        height, width = (sides.create_unbacked_symint() for _ in range(2))
        for side in (height, width):
            torch._check(side >= 1)
            torch._check(side <= 1000)
        told = convolved(image(4 * height, 8 * width, of_image), kernel, of_weight, transposed)
        plain = convolved(image(5, 7, of_image), kernel, of_weight, transposed)
    assert told.shape[:2] == known.shape[:2]
    assert (told.stride(1) == 1) == (known.stride(1) == 1)  # channels-last or not
    assert plain.shape == known.shape and plain.stride() == known.stride()


def test_the_table_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    table, convolution = fake_impls.op_implementations_dict, torch.ops.aten.convolution.default
    before = table[convolution]
    with pytest.raises(KeyError), convolutions_keep_their_layout():
        assert table[convolution] is not before
        raise KeyError
    assert table[convolution] is before
    monkeypatch.delattr(fake_impls, "op_implementations_dict")
    with convolutions_keep_their_layout():
        assert table[convolution] is before


@pytest.mark.slow  # imports the whole compiler
def test_a_reshape_tells_nothing_of_sizes() -> None:
    """Without, PyTorch 2.14 takes a map of this reshape for one cell, and a compiled detector finds other boxes."""
    from torch._inductor.ir import View
    from torch._inductor.sizevars import SizeVarAllocator
    from torch._inductor.virtualized import V

    if not hasattr(SizeVarAllocator, "check_equals"):
        pytest.skip(f"PyTorch {torch.__version__} asks in another way")
    sides = ShapeEnv()
    sizes = SizeVarAllocator(sides)
    symbols = [sides.create_unbacked_symint() for _ in range(2)]
    for side in symbols:
        torch._check(side >= 1)
        torch._check(side <= 1000)
    height, width = (side.node.expr for side in symbols)
    before = [sympy.Integer(2), height, width, sympy.Integer(12)]
    after = [sympy.Integer(2), 3 * height * width, sympy.Integer(4)]
    own = View._dynamic_reshape_indexer
    with V.set_graph_handler(SimpleNamespace(sizevars=sizes)), reshapes_assume_nothing():
        place = View.dynamic_reshape_indexer(before, after)([sympy.Integer(v) for v in (1, 50, 3)])
    assert View._dynamic_reshape_indexer is own
    assert not sizes.is_size_one_or_false(height * width)
    values = torch.arange(2 * 5 * 7 * 12)
    at = [int(axis.subs({height: 5, width: 7})) for axis in place]
    assert values.view(2, 5, 7, 12)[tuple(at)] == values.view(2, 105, 4)[1, 50, 3]
