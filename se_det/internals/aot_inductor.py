"""Programs compiled ahead of time by AOTInductor.

Uses: `torch._inductor.aoti_compile_and_package` and `aoti_load_package`, which PyTorch documents under that name. There
from PyTorch 2.6, the lowest that the package runs on, to 2.14. And the table `op_implementations_dict` of
`torch._subclasses.fake_impls`, by which compilers know what layout a convolution's output has; private, with this name
from PyTorch 2.6 to 2.14.

Without: `is_available` is False, and compiled packages are neither written nor read. Without the table programs are
compiled as PyTorch does by itself; who writes a package compares it.
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

    with convolutions_keep_their_layout():
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


def load_package(path: str | Path) -> Any:
    """A compiled program: callable, with `get_metadata()`."""
    import torch._inductor

    return torch._inductor.aoti_load_package(str(path))
