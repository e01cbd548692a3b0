"""Whether code is run, or looked at by a compiler or an exporter."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a compiler or an exporter is looking: it fuses passes itself, and cannot see through our own ones."""
    # PyTorch 2.6 has no is_exporting; its exporter says that it is compiling.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return torch.compiler.is_compiling() or exporting() or torch.jit.is_tracing()
