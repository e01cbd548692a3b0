"""What a format is, and what all begin with: the network as a graph of PyTorch's operations."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from ...errors import ExportError
from ...registry import Registry
from ..networks import Exportable

# By the ending of a file's name: `write(network, path)`, which writes that file, and others beside it.
FORMATS = Registry("export format")
COMPILED = ".pt2, compiled"


@torch.no_grad()
def trace(network: Exportable) -> torch.export.ExportedProgram:
    """Trace the network to a graph of PyTorch operations.

    Raises:
        Exception: of many kinds: the network has control flow that depends on values, so it cannot be traced.
    """
    free = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in network.free)
    inputs = network.make_inputs(network.shapes[0])
    return torch.export.export(network.module, inputs, dynamic_shapes=free, strict=False)


def require(what: str, install: str, *packages: str) -> Any:
    """Import what writes a format; the first of them is returned.

    Raises:
        ExportError: one is not installed.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"{what} need the package {package}, which is not installed: {install}.") from error
    return importlib.import_module(packages[0])
