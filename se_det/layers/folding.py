"""The end of a gated branch whose last layer is a 1 x 1 convolution W with a fixed affine norm.

There U = W x + b, so an average of U is W times the same average of x, plus b: the squeeze reads x, which has a
quarter of U's channels in a bottleneck. The factors s then go into the weights, s U = (s W) x + s b, and U is neither
written, read back nor kept for the backward pass. Equal to the plain formula up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .area import ValidArea
from .gates import SE
from .norms import affine_convolution, has_fixed_affine
from .onednn import Packed

aten = torch.ops.aten


def can_fold(conv: nn.Conv2d, gate: SE) -> bool:
    """Whether `gate(conv.norm(conv(x)))` is one multiplication of an affine function of each cell of x."""
    return gate.one_factor and conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and (
        conv.groups == 1 and has_fixed_affine(conv)
    )  # fmt: skip


def folded_sum(
    conv: nn.Conv2d, gate: SE, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None
) -> torch.Tensor:
    """relu(gate(conv.norm(conv(x))) + shortcut), for a convolution and a gate that `can_fold`.

    Args:
        x: (N, C_in, H, W).
        shortcut: (N, C, H, W).
        area: of each image on both.

    Returns:
        (N, C, H, W); second derivatives are not available.
    """
    weight, bias = affine_convolution(conv)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    # Under autocast the weights follow x, which the convolutions before have made half precision.
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    grids = _convolved([grid.to(x.dtype) for grid in gate.squeeze(x, area)], weight, bias)
    factors = gate.scale(grids).to(x.dtype)
    shortcut = shortcut.to(x.dtype)
    if not torch.is_grad_enabled():
        return _sum(x, weight, bias, factors, shortcut, conv.packed)
    return _FoldedSum.apply(x, weight, bias, factors, shortcut)


def _convolved(grids: Sequence[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
    """The 1 x 1 convolution of a few cells as a product of matrices: a convolution would lay out its weights first."""
    cells = torch.cat([grid.flatten(2) for grid in grids], 2)
    counts = [grid.shape[-2] * grid.shape[-1] for grid in grids]
    results = F.linear(cells.mT, weight.flatten(1), bias).mT.split(counts, 2)
    return [result.unflatten(2, grid.shape[-2:]) for result, grid in zip(results, grids)]


def _sum(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor, shortcut: torch.Tensor,
    packed: Packed | None = None,
) -> torch.Tensor:  # fmt: skip
    """relu((s W) x + s b + shortcut), in the form that measured fastest (2-core CPU, PyTorch 2.15).

    One image of more cells than input channels: the factors go into the weights, which are then fewer than the values
    of U. Else: one convolution for all, and the factors in the pass that adds the shortcut. A convolution for each
    image, a grouped one and `baddbmm` took up to 1.3, 3.5 and 1.5 times as long on the maps of a 2 x 480 x 640 and a
    4 x 480 x 640 px batch. On a GPU nothing was measured.

    Args:
        packed: of the convolution whose weight and bias these are.
    """
    if packed is not None and not packed.runs(x):
        packed = None
    if len(x) == 1 and x.shape[-2] * x.shape[-1] > x.shape[1]:
        weight, bias = weight * factors.view(-1, 1, 1, 1), bias * factors.flatten()
        if packed is not None:
            return packed(x, relu=True, plus=shortcut, given=(weight, bias))
        return F.conv2d(x, weight, bias).add_(shortcut).relu_()
    u = packed(x) if packed is not None else F.conv2d(x, weight, bias)
    return torch.addcmul(shortcut, u, factors, out=u).relu_()


class _FoldedSum(Function):
    """`_sum` that keeps x and its own result for the backward pass, and not U."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor,
                shortcut: torch.Tensor) -> torch.Tensor:  # fmt: skip
        out = _sum(x, weight, bias, factors, shortcut)
        ctx.save_for_backward(x, weight, bias, factors, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, factors, out = ctx.saved_tensors
        grad = aten.threshold_backward(grad, out, 0)
        wanted = ctx.needs_input_grad
        of_weights = any(wanted[1:4])
        grad_x = torch.empty_like(x) if wanted[0] else None
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        grad_factors = torch.empty_like(factors)
        # Image by image the weights are s W, and their gradient G gives the factor's: <G, W>, without U.
        for n in range(len(x)):
            s = factors[n].unsqueeze(-1)
            of_x, of_folded, of_shift = _convolution_backward(
                grad[n : n + 1], x[n : n + 1], weight * s, (wanted[0], of_weights, of_weights)
            )
            if wanted[0]:
                grad_x[n : n + 1] = of_x
            if of_weights:
                grad_factors[n] = ((of_folded * weight).sum((1, 2, 3)) + of_shift * bias)[:, None, None]
                grad_weight.addcmul_(of_folded, s)
                grad_bias.addcmul_(of_shift, factors[n].flatten())
        gradients = (grad_x, grad_weight, grad_bias, grad_factors, grad)
        return tuple(gradient if need else None for gradient, need in zip(gradients, wanted))


def _convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mask: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, list(mask)
    )
