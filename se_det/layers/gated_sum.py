"""The end of a residual block: relu(gate(norm(conv(x))) + shortcut), in the cheapest form that holds."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .area import ValidArea
from .batch_statistics import batch_norm_sum, has_batch_statistics
from .conv import Conv2d
from .folding import can_fold, folded_sum
from .gates import SE


def gated_sum(
    conv: Conv2d, gate: SE | None, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None
) -> torch.Tensor:
    """relu(gate(conv.norm(conv(x))) + shortcut).

    Args:
        conv: the branch's last convolution, with its norm; it keeps the size of the map.
        gate: the branch's gate, or None.
        x: (N, C_in, H, W), the input of that convolution.
        shortcut: (N, C, H, W).
        area: of each image on all of them.

    Returns:
        (N, C, H, W).
    """
    if gate is None:
        return F.relu_(conv(x, area).add_(shortcut))
    if not gate.one_factor or is_traced():
        return plain_sum(conv, gate, x, shortcut, area)
    if can_fold(conv, gate):
        return folded_sum(conv, gate, x, shortcut, area)
    if torch.is_grad_enabled() and conv.norm is not None and conv.norm.training:
        z = conv.convolve(x, area)
        if has_batch_statistics(conv.norm, z):
            return batch_norm_sum(conv.norm, gate, z, shortcut, area)
        u = conv.normalise(z, area)
    else:
        u = conv(x, area)
    return F.relu_(torch.addcmul(shortcut, u, gate.scale(gate.squeeze(u, area)).to(u.dtype)))


def plain_sum(
    conv: Conv2d, gate: SE, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None
) -> torch.Tensor:
    """The formula as the papers have it: what the other forms are tested against."""
    return F.relu_(gate(conv(x, area), area).add_(shortcut))


def is_traced() -> bool:
    """Whether a compiler or an exporter is looking: it fuses passes itself, and cannot see through our own ones."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()
