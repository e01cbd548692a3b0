"""Programs compiled ahead of time by AOTInductor.

Uses: `torch._inductor.aoti_compile_and_package` and `aoti_load_package`, which PyTorch documents under that name. There
from PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: `is_available` is False, and compiled packages are neither written nor read.
"""

from __future__ import annotations

import importlib
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

    torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs={"aot_inductor.metadata": metadata}
    )


def load_package(path: str | Path) -> Any:
    """A compiled program: callable, with `get_metadata()`."""
    import torch._inductor

    return torch._inductor.aoti_load_package(str(path))
