"""The end of a residual block: relu(gate(norm(conv(x))) + shortcut), in the cheapest form that holds."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .activation_checkpointing import checkpointed
from .batch_statistics import batch_norm_sum, has_batch_statistics
from .conv import Conv2d
from .folding import can_fold, folded_sum
from .gates import SE
from .kernels import makes_passes
from .norms import FrozenBatchNorm2d
from .tracing import is_traced
from .valid_area import ValidArea


def gated_sum(
    conv: Conv2d, gate: SE | None, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None, *,
    overwrite: bool = False,
) -> torch.Tensor:  # fmt: skip
    """relu(gate(conv.norm(conv(x))) + shortcut).

    Args:
        conv: the branch's last convolution, with its norm; it keeps the size of the map.
        gate: the branch's gate, or None.
        x: (N, C_in, H, W), the input of that convolution.
        shortcut: (N, C, H, W).
        area: of each image on all of them.
        overwrite: nothing else reads `shortcut`: without gradients the result may be written over it.

    Returns:
        (N, C, H, W).
    """
    if gate is None:
        return conv.forward_relu(x, area, residual=shortcut, overwrite=overwrite)
    if is_traced():
        return plain_sum(conv, gate, x, shortcut, area)
    if not gate.one_factor:
        return _cbam_sum(conv, gate, x, shortcut, area)
    if can_fold(conv, gate):
        return folded_sum(conv, gate, x, shortcut, area, overwrite=overwrite)
    if torch.is_grad_enabled() and conv.norm is not None and conv.norm.training:
        z = conv.convolve(x, area)
        if has_batch_statistics(conv.norm, z):
            return batch_norm_sum(conv.norm, gate, z, shortcut, area)
        u = conv.normalize(z, area)
    else:
        u = conv(x, area)
    factors = gate.scale(gate.squeeze(u, area)).to(u.dtype)
    if makes_passes(gate, u):
        from .triton_kernels import scaled_sum

        return scaled_sum(u, factors, shortcut.to(u.dtype))
    return F.relu_(torch.addcmul(shortcut, u, factors))


def _cbam_sum(conv: Conv2d, gate: SE, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
    """CBAM, whose formula would keep three more maps of U's size: they are computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return plain_sum(conv, gate, x, shortcut, area)
    frozen = isinstance(conv.norm, FrozenBatchNorm2d)  # which is part of its convolution

    def end(z: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        u = z if frozen else conv.normalize(z, area)
        return F.relu_(gate(u, area).add_(shortcut))

    z = conv(x, area) if frozen else conv.convolve(x, area)
    return checkpointed(nn.ModuleList([conv, gate]), end, z, shortcut)


def plain_sum(
    conv: Conv2d, gate: SE, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None
) -> torch.Tensor:
    """The formula as the papers have it: what the other forms are tested against."""
    return F.relu_(gate(conv(x, area), area).add_(shortcut))
