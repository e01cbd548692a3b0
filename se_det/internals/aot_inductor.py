"""Programs compiled ahead of time by AOTInductor.

Uses: `torch._inductor.aoti_compile_and_package` and `aoti_load_package`, which PyTorch documents under that name. There
from PyTorch 2.6, the lowest that the package runs on, to 2.14. And the table `op_implementations_dict` of
`torch._subclasses.fake_impls`, by which compilers know what layout a convolution's output has; private, with this name
from PyTorch 2.6 to 2.14. And `View._dynamic_reshape_indexer` of `torch._inductor.ir`, with `V.graph.sizevars`, of which
it asks what it knows of sizes; private, as used here in PyTorch 2.14.

Without: `is_available` is False, and compiled packages are neither written nor read. Without the private parts programs
are compiled as PyTorch does by itself; who writes a package compares it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def is_available() -> bool:
    """Whether this PyTorch has both."""
    try:
        inductor = importlib.import_module("torch._inductor")
    except ImportError:
        return False
    return hasattr(inductor, "aoti_compile_and_package") and hasattr(inductor, "aoti_load_package")


def compile_package(program: torch.export.ExportedProgram, path: str | Path, metadata: dict[str, str]) -> None:
    """Compile a program for the device that its weights are on, to a .pt2."""
    import torch._inductor

    with convolutions_keep_their_layout(), reshapes_assume_nothing():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"aot_inductor.metadata": metadata}
        )


@contextmanager
def convolutions_keep_their_layout() -> Iterator[None]:
    """Tell compilers that a convolution's output is channels-last where its input or weight is, at any size.

    PyTorch 2.14 knows that only of sizes it has seen. Where a size is a number that the graph computes, it takes the
    output for contiguous, while Inductor has made the input channels-last, so that what follows reads the wrong cells.
    """
    try:
        from torch._prims_common import suggest_memory_format
        from torch._subclasses.fake_impls import op_implementations_dict as table
    except ImportError:
        yield
        return
    convolution = torch.ops.aten.convolution.default
    known = table.get(convolution)
    if known is None:
        yield
        return

    def with_layout(mode: Any, operator: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = known(mode, operator, *args, **kwargs)
        x, weight = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)][:2]
        if out.ndim != 4 or all(isinstance(side, int) or side.node.has_hint() for side in x.shape):
            return out
        if torch.channels_last not in (suggest_memory_format(x), suggest_memory_format(weight)):
            return out
        channels, height, width = out.shape[1:]
        return out.new_empty_strided(out.shape, (channels * height * width, 1, channels * width, channels))

    table[convolution] = with_layout
    try:
        yield
    finally:
        table[convolution] = known


@contextmanager
def reshapes_assume_nothing() -> Iterator[None]:
    """Keep Inductor from taking sizes that a run computes for equal because a reshape would be simpler if they were.

    PyTorch 2.14 indexes a reshape axis by axis, and where axes do not line up it means to fail and to go by way of one
    axis. It notices by asking whether two sizes are equal; of sizes that only a run knows it believes that they are,
    there and in all that follows. So of H x W cells of 3 x 4 values, (N, H, W, 12) to (N, 3 H W, 4), it learns that
    H W is 1, and of a map's anchors reads the first alone. Here it is told no of what does not hold for all sizes.
    """
    try:
        from torch._inductor.ir import View
        from torch._inductor.virtualized import V
        from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

        known = View._dynamic_reshape_indexer
    except (ImportError, AttributeError):
        yield
        return

    def careful(old_size: Any, new_size: Any, *args: Any) -> Any:
        sizes = V.graph.sizevars
        if min(len(old_size), len(new_size)) < 2 or not hasattr(sizes, "check_equals"):
            return known(old_size, new_size, *args)
        believe = sizes.check_equals

        def check_equals(left: Any, right: Any) -> Any:
            if free_unbacked_symbols([left, right]) and not _equal_in_general(left, right):
                raise AssertionError(f"{left} and {right} are two sizes")  # what its caller expects of axes that differ
            return believe(left, right)

        sizes.check_equals = check_equals
        try:
            return known(old_size, new_size, *args)
        finally:
            del sizes.check_equals

    View._dynamic_reshape_indexer = staticmethod(careful)
    try:
        yield
    finally:
        View._dynamic_reshape_indexer = staticmethod(known)


def _equal_in_general(left: Any, right: Any) -> bool:
    """Whether two sizes, as sympy's expressions, are equal whatever their symbols are: tried with some numbers."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    numbers = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
    for first in range(len(numbers)):
        values = {symbol: numbers[(first + 3 * at) % len(numbers)] for at, symbol in enumerate(symbols)}
        if left.subs(values) != right.subs(values):
            return False
    return True


def load_package(path: str | Path) -> Any:
    """A compiled program: callable, with `get_metadata()`."""
    import torch._inductor

    return torch._inductor.aoti_load_package(str(path))
