"""The end of a gated branch whose last layer is a batch norm in training, Z to U = a Z + b with the batch's own a, b.

Plain PyTorch keeps both Z (for the norm) and U (for the gate) until the backward pass, and goes over the maps once for
the norm, once for the squeeze, once for the scaling, once for the addition and once for the ReLU. Here one pass over Z
gives every image's means, of which both the batch's statistics and the squeeze are made; the norm, the scaling and the
addition are one affine of Z; and only Z and the result are kept. Equal to the plain formula up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from ..internals.aten import channel_moments, channel_sums, relu_backward
from .gates import SE
from .kernels import makes_passes
from .valid_area import ValidArea


def has_batch_statistics(norm: nn.Module | None, z: torch.Tensor) -> bool:
    """Whether `norm` would normalise `z` with statistics of this process's batch, of more than one value each."""
    return type(norm) is nn.BatchNorm2d and norm.training and norm.affine and z.numel() > z.shape[1]


def batch_norm_sum(
    norm: nn.BatchNorm2d, gate: SE, z: torch.Tensor, shortcut: torch.Tensor, area: ValidArea | None = None
) -> torch.Tensor:
    """relu(gate(norm(z)) + shortcut), for a norm that `has_batch_statistics` and a gate of one factor.

    Updates the norm's running statistics, as it does itself.

    Args:
        z: (N, C, H, W), the output of a convolution.
        shortcut: the same shape.
        area: of each image on both.

    Returns:
        (N, C, H, W); second derivatives are not available.
    """
    return _BatchNormSum.apply(norm, gate, area, z, shortcut.to(z.dtype), norm.weight, norm.bias, *gate.parameters())


class _BatchNormSum(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, norm: nn.BatchNorm2d, gate: SE, area: ValidArea | None, z: torch.Tensor,
                shortcut: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:  # fmt: skip
        kernels = _kernels(gate, z)
        means, variances = _moments_by_kernel(kernels, z) if kernels else _moments(z)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        _update_running(norm, mean, variance, z.numel() // z.shape[1])
        whole = gate.grids == (1,) and (area is None or area.covers(z))
        grids = [] if whole else [grid.to(means.dtype) for grid in gate.squeeze(z, area)]
        # From the moments to one affine for each image and channel is a graph of its own, of a few small tensors.
        leaves = [leaf.detach().requires_grad_() for leaf in (means, variance, *grids)]
        # Whatever is to become of the outer graph's tensors, as under activation checkpointing, these stay.
        with torch.enable_grad(), saved_tensors_hooks(_without_graph, _same):
            affine = _affine(norm, gate, *leaves[:2], grids=leaves[2:], like=z)
        scale, shift = (part.detach().to(z.dtype) for part in affine)
        if kernels:
            out = kernels.affine_relu(z, scale, shift, shortcut)
        else:
            out = torch.addcmul(shortcut, z, scale).add_(shift).relu_()
        ctx.save_for_backward(z, out, mean, scale)
        ctx.gate, ctx.area, ctx.affine, ctx.leaves, ctx.parameters = gate, area, affine, leaves, parameters
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, out, mean, scale = ctx.saved_tensors
        kernels = _kernels(ctx.gate, z)
        if kernels:
            grad, _, *sums = kernels.affine_relu_backward(grad, out, z, None)
            sums = tuple(part[:, :, None, None] for part in sums)
        else:
            grad = relu_backward(grad, out)
            sums = _sums(grad, z)
        wanted = [*ctx.leaves, *(p for p in ctx.parameters if p.requires_grad)]
        gradients = iter(
            torch.autograd.grad(ctx.affine, wanted, sums, retain_graph=True, allow_unused=True, materialize_grads=True)
        )
        of_means, of_variance, *of_grids = (next(gradients) for _ in ctx.leaves)
        of_parameters = [next(gradients) if p.requires_grad else None for p in ctx.parameters]
        grad_z = None
        if ctx.needs_input_grad[3]:
            cells = z.shape[-2] * z.shape[-1]
            slope = of_variance * (2 / (len(z) * cells))
            constant = of_means / cells - slope * mean
            grad_z = torch.addcmul(constant[:, :, None, None].to(z.dtype), grad, scale)
            grad_z.addcmul_(z, slope[:, None, None].to(z.dtype))
            if of_grids:
                grad_z += _squeeze_backward(ctx.gate, z, ctx.area, of_grids)
        return None, None, None, grad_z, grad, *of_parameters


def _kernels(gate: SE, z: torch.Tensor) -> ModuleType | None:
    """Our Triton kernels where `gate` has them used."""
    if not makes_passes(gate, z):
        return None
    from . import triton_kernels

    return triton_kernels


def _moments_by_kernel(kernels: ModuleType, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_moments` of sums and sums of squares, in float32."""
    cells = z.shape[-2] * z.shape[-1]
    means, squares = (part / cells for part in kernels.cell_sums(z, z))
    return means, (squares - means.square()).clamp_(min=0)


def _without_graph(x: torch.Tensor) -> torch.Tensor:
    """What an operator keeps of its own result must not hold the operator in turn: nobody would ever free the two."""
    return x.detach()


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _affine(
    norm: nn.BatchNorm2d, gate: SE, means: torch.Tensor, variance: torch.Tensor, *, grids: Sequence[torch.Tensor],
    like: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """(scale, shift), each (N, C, 1, 1): gate(norm(z)) is z * scale + shift.

    Args:
        means: (N, C) of z; variance: (C,), biased.
        grids: the gate's averages of z; none stands for the means.
        like: the maps, in whose type the gate computes.
    """
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - means.mean(0) * scale
    scale, shift = scale[:, None, None], shift[:, None, None]
    descriptors = [grid * scale + shift for grid in (grids or [means[:, :, None, None]])]
    factors = gate.scale([descriptor.to(like.dtype) for descriptor in descriptors]).to(means.dtype)
    return factors * scale, factors * shift


def _moments(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance over the cells of each image and channel, (N, C) each, in one pass."""
    if z.is_meta:  # the operation below has no form for tensors without values
        return tuple(z.new_empty(z.shape[:2], dtype=_accumulator(z)) for _ in range(2))
    if z.device.type != "cpu":
        return _moments_at_once(z)
    parts = [channel_moments(image) for image in z.split(1)]
    return torch.stack([mean for mean, _ in parts]), torch.stack([variance for _, variance in parts])


def _sums(grad: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sum(grad * z) and sum(grad) over the cells of each image and channel, (N, C, 1, 1) each."""
    if z.device.type != "cpu":
        return _sums_at_once(grad, z)
    parts = [channel_sums(g, image) for g, image in zip(grad.split(1), z.split(1))]
    of_scale, of_shift = (torch.stack(part)[:, :, None, None] for part in zip(*parts))
    return of_scale, of_shift


def _moments_at_once(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_moments` in a few kernels, however many images: a GPU would wait for the host that asks for each."""
    wide = _accumulator(z)
    if z.dtype == wide:
        variances, means = torch.var_mean(z, (2, 3), correction=0)
        return means, variances
    # In half precision var_mean would round what it returns. Sums of squares lose no digit that the values have.
    cells = z.shape[-2] * z.shape[-1]
    with torch.autocast(z.device.type, enabled=False):  # which would copy the maps for the norm
        means = z.sum((2, 3), dtype=wide) / cells
        squares = torch.linalg.vector_norm(z, dim=(2, 3), dtype=wide).square() / cells
    return means, (squares - means.square()).clamp_(min=0)


def _sums_at_once(grad: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_sums` in a few kernels; float16, whose products can leave its range, is multiplied in float32."""
    wide = _accumulator(z)
    products = grad.to(wide if grad.dtype == torch.float16 else grad.dtype) * z
    return tuple(part.sum((2, 3), keepdim=True, dtype=wide) for part in (products, grad))


def _accumulator(z: torch.Tensor) -> torch.dtype:
    return torch.promote_types(z.dtype, torch.float32)


def _squeeze_backward(
    gate: SE, z: torch.Tensor, area: ValidArea | None, gradients: Sequence[torch.Tensor]
) -> torch.Tensor:
    """What the gate's averages send to z."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        grids = gate.squeeze(leaf, area)
    return torch.autograd.grad(grids, leaf, [g.to(grid.dtype) for g, grid in zip(gradients, grids)])[0]


@torch.no_grad()
def _update_running(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
    """What `nn.BatchNorm2d` does with a batch's statistics."""
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a plain average over all batches
        momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)
