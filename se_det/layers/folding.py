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

from ..internals.aten import pointwise_backward, relu_backward
from .conv import Conv2d
from .gates import SE
from .kernels import makes_passes
from .norms import affine_convolution, has_fixed_affine
from .onednn import PackedConv2d
from .packed_gate import has_packed_form, packed_factors
from .valid_area import ValidArea


def can_fold(conv: nn.Conv2d, gate: SE) -> bool:
    """Whether `gate(conv.norm(conv(x)))` is one multiplication of an affine function of each cell of x."""
    return gate.one_factor and conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and (
        conv.groups == 1 and has_fixed_affine(conv)
    )  # fmt: skip


def folded_sum(
    conv: Conv2d, gate: SE, x: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None, *,
    overwrite: bool = False,
) -> torch.Tensor:  # fmt: skip
    """relu(gate(conv.norm(conv(x))) + shortcut), for a convolution and a gate that `can_fold`.

    Args:
        x: (N, C_in, H, W).
        shortcut: (N, C, H, W).
        area: of each image on both.
        overwrite: whether the result may be written over `shortcut`.

    Returns:
        (N, C, H, W); second derivatives are not available.
    """
    weight, bias = affine_convolution(conv)
    packed = conv.packed_conv(x)  # none where gradients are asked for
    if packed is not None and has_packed_form(gate):
        return _sum(x, weight, bias, packed_factors(conv, gate, x, area), shortcut, packed, overwrite)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    # Under autocast the weights follow x, which the convolutions before have made half precision.
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    grids = _convolved([grid.to(x.dtype) for grid in gate.squeeze(x, area)], weight, bias)
    factors = gate.scale(grids).to(x.dtype)
    shortcut = shortcut.to(x.dtype)
    if makes_passes(gate, shortcut):
        from .triton_kernels import scaled_sum

        return scaled_sum(F.conv2d(x, weight, bias), factors, shortcut)
    if not torch.is_grad_enabled():
        return _sum(x, weight, bias, factors, shortcut, packed, overwrite)
    return _FoldedSum.apply(x, weight, bias, factors, shortcut)


def _convolved(grids: Sequence[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
    """The 1 x 1 convolution of a few cells as a product of matrices: a convolution would lay out its weights first.
    One product for all grids, as each reads the weights, and writes a gradient as large."""
    cells = [grid.flatten(2) for grid in grids]
    out = F.linear(torch.cat(cells, 2).mT, weight.flatten(1), bias).mT
    return [part.unflatten(2, grid.shape[-2:]) for part, grid in zip(out.split([c.shape[2] for c in cells], 2), grids)]


def _sum(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, factors: torch.Tensor, shortcut: torch.Tensor,
    packed: PackedConv2d | None = None, overwrite: bool = False,
) -> torch.Tensor:  # fmt: skip
    """relu((s W) x + s b + shortcut), in the form that measured fastest (2-core CPU, PyTorch 2.15).

    One image of more cells than input channels: the factors go into the weights, which are then fewer than the values
    of U. Else: one convolution for all, and the factors in the pass that adds the shortcut. A convolution for each
    image, a grouped one and `baddbmm` took up to 1.3, 3.5 and 1.5 times as long on the maps of a 2 x 480 x 640 and a
    4 x 480 x 640 px batch. On a GPU nothing was measured.

    Args:
        packed: how the convolution of which these are weight and bias runs on x, see `Conv2d.packed_conv`.
    """
    if len(x) == 1 and x.shape[-2] * x.shape[-1] > x.shape[1]:
        weight = weight * factors.view(-1, 1, 1, 1)
        bias = None if bias is None else bias * factors.flatten()
        if packed is not None:
            return packed(x, relu=True, residual=shortcut, given=(weight, bias), overwrite=overwrite)
        return F.conv2d(x, weight, bias).add_(shortcut).relu_()
    u = packed(x) if packed is not None else F.conv2d(x, weight, bias)
    return torch.addcmul(shortcut, u, factors, out=u).relu_()


class _FoldedSum(Function):
    """`_sum` that keeps x and its own result for the backward pass, and U only where it is smaller than the weights.

    The factors' gradient is sum(grad U). Where U is not kept it comes from the weights' gradient G of each image alone,
    as <G, W>, which goes over the weights a few times for each image: on the 15 x 20 cells of res5 of a 480 x 640 px
    image that took 20 ms in place of the 16 of a plain convolution, and with U 17. On the larger maps it took 1 to
    1.7 ms more than a plain convolution, and with U 2 to 9.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor,
                shortcut: torch.Tensor) -> torch.Tensor:  # fmt: skip
        if _keeps_u(x):
            u = F.conv2d(x, weight, bias)
            out = torch.addcmul(shortcut, u, factors).relu_()
        else:
            u, out = None, _sum(x, weight, bias, factors, shortcut)
        ctx.save_for_backward(x, weight, bias, factors, out, u)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, factors, out, u = ctx.saved_tensors
        grad = relu_backward(grad, out)
        of_parts = _gradients_with_u if u is not None else _gradients_per_image
        wanted = ctx.needs_input_grad
        gradients = (*of_parts(grad, x, weight, bias, factors, u, wanted), grad)
        return tuple(gradient if need else None for gradient, need in zip(gradients, wanted))


def _keeps_u(x: torch.Tensor) -> bool:
    """Whether U is kept: where it is small; and of several images on a GPU, which a few small kernels for each image
    would leave waiting for the host."""
    return x.shape[-2] * x.shape[-1] <= x.shape[1] or (x.device.type != "cpu" and len(x) > 1)


def _gradients_with_u(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor,
    u: torch.Tensor, wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The gradients of x, weight, bias and factors."""
    of_factors = (grad * u).sum((2, 3), keepdim=True) if wanted[3] else None
    return *pointwise_backward(grad * factors, x, weight, wanted[:3]), of_factors


def _gradients_per_image(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor,
    u: None, wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The same without U: of one image the weights are s W, and <their gradient, W> is the factor's."""
    of_weights = any(wanted[1:4])
    grad_x = torch.empty_like(x) if wanted[0] else None
    grad_weight = torch.zeros_like(weight)
    # Not left to the convolutions, where a sum over all images' cells takes up to twice as long.
    of_shift = grad.sum((2, 3), keepdim=True) if of_weights else torch.zeros_like(factors)
    grad_factors = of_shift * bias[:, None, None]
    for n in range(len(x)):
        s = factors[n].unsqueeze(-1)
        of_x, of_folded, _ = pointwise_backward(
            grad[n : n + 1], x[n : n + 1], weight * s, (wanted[0], of_weights, False)
        )
        if wanted[0]:
            grad_x[n : n + 1] = of_x
        if of_weights:
            grad_weight.addcmul_(of_folded, s)
            grad_factors[n] += of_folded.mul_(weight).sum((1, 2, 3))[:, None, None]
    return grad_x, grad_weight, (of_shift * factors).sum((0, 2, 3)), grad_factors
