"""PyTorch's own: a program for `torch.export.load`, or a package that AOTInductor compiled."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...errors import ExportError
from ...inference.runtimes import METADATA_KEY
from ...internals import aot_inductor
from ..networks import Exportable
from .registry import COMPILED, FORMATS, trace


@FORMATS.register(name=".pt2")
def write_program(network: Exportable, path: Path) -> None:
    """Write a program with its metadata as an extra file."""
    torch.export.save(trace(network), path, extra_files={METADATA_KEY: json.dumps(dict(network.metadata))})


@FORMATS.register(name=COMPILED)
def write_package(network: Exportable, path: Path) -> None:
    """Compile, for processors like this one; takes minutes and a C++ compiler."""
    if not aot_inductor.is_available():
        raise ExportError(f"PyTorch {torch.__version__} has no AOTInductor: export a .pt2 that is not compiled.")
    aot_inductor.compile_package(trace(network), path, {METADATA_KEY: json.dumps(dict(network.metadata))})
