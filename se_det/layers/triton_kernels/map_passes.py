"""Passes over maps (N, C, H, W), in either memory format: sums over cells, and relu(scale u + shift + shortcut).

Every program owns some channels and some cells of one image. What it sums over its cells it writes down, and the few
numbers of all programs are added up afterwards: sums are in the same order every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

# Cells and channels that are looked at together, the longer side along what lies together in memory.
SHORT, LONG = 16, 64
PARTS = 32  # that an image's cells are divided into, at most


@triton.jit
def _locate(channels, cells, part_cells, stride_n, stride_c, CHANNELS: tl.constexpr):
    """This program's image and channels, its cells (first, last), where its channels begin, and where its sums go."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    first = tl.program_id(2) * part_cells
    last = tl.minimum(first + part_cells, cells)
    start = image * stride_n + channel[None, :].to(tl.int64) * stride_c
    of_part = (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + image) * channels + channel
    return image, channel, first, last, start, of_part


@triton.jit
def _cell_sums(
    a, b, sums, products, channels, cells, part_cells, stride_n, stride_c, stride_p,
    PRODUCTS: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    _, channel, first, last, start, of_part = _locate(channels, cells, part_cells, stride_n, stride_c, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float32)
    total_of_products = tl.zeros([CHANNELS], tl.float32)
    for offset in range(0, part_cells, CELLS):
        cell = first + offset + tl.arange(0, CELLS)
        there = (cell[:, None] < last) & (channel[None, :] < channels)
        at = start + cell[:, None].to(tl.int64) * stride_p
        value = tl.load(a + at, mask=there, other=0.0).to(tl.float32)
        total += tl.sum(value, 0)
        if PRODUCTS:
            total_of_products += tl.sum(value * tl.load(b + at, mask=there, other=0.0).to(tl.float32), 0)
    tl.store(sums + of_part, total, mask=channel < channels)
    if PRODUCTS:
        tl.store(products + of_part, total_of_products, mask=channel < channels)


@triton.jit
def _affine_relu(
    u, scale, shift, shortcut, out, channels, cells, part_cells, stride_n, stride_c, stride_p,
    SHIFTED: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, channel, first, last, start, _ = _locate(channels, cells, part_cells, stride_n, stride_c, CHANNELS)
    factor = tl.load(scale + image * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
    if SHIFTED:
        addend = tl.load(shift + image * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for offset in range(0, part_cells, CELLS):
        cell = first + offset + tl.arange(0, CELLS)
        there = (cell[:, None] < last) & (channel[None, :] < channels)
        at = start + cell[:, None].to(tl.int64) * stride_p
        value = tl.load(u + at, mask=there, other=0.0).to(tl.float32) * factor[None, :]
        value += tl.load(shortcut + at, mask=there, other=0.0).to(tl.float32)
        if SHIFTED:
            value += addend[None, :]
        # Not a maximum, which would turn NaN into 0: weights that have diverged must show.
        tl.store(out + at, tl.where(value < 0, 0.0, value).to(out.dtype.element_ty), mask=there)


@triton.jit
def _affine_relu_backward(
    grad, out, u, scale, of_sum, of_u, sums, products, channels, cells, part_cells, stride_n, stride_c, stride_p,
    SCALED: tl.constexpr, CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, channel, first, last, start, of_part = _locate(channels, cells, part_cells, stride_n, stride_c, CHANNELS)
    if SCALED:
        factor = tl.load(scale + image * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    total_of_products = tl.zeros([CHANNELS], tl.float32)
    for offset in range(0, part_cells, CELLS):
        cell = first + offset + tl.arange(0, CELLS)
        there = (cell[:, None] < last) & (channel[None, :] < channels)
        at = start + cell[:, None].to(tl.int64) * stride_p
        passed = tl.load(out + at, mask=there, other=0.0) > 0
        value = tl.where(passed, tl.load(grad + at, mask=there, other=0.0).to(tl.float32), 0.0)
        total += tl.sum(value, 0)
        total_of_products += tl.sum(value * tl.load(u + at, mask=there, other=0.0).to(tl.float32), 0)
        tl.store(of_sum + at, value.to(of_sum.dtype.element_ty), mask=there)
        if SCALED:
            tl.store(of_u + at, (value * factor[None, :]).to(of_u.dtype.element_ty), mask=there)
    tl.store(sums + of_part, total, mask=channel < channels)
    tl.store(products + of_part, total_of_products, mask=channel < channels)


class _Plan:
    """How the maps like `x` are divided among programs."""

    def __init__(self, x: torch.Tensor) -> None:
        images, channels, height, width = x.shape
        self.cells, (stride_n, stride_c, _, stride_p) = height * width, x.stride()
        if x.is_contiguous():
            self.format, tile = torch.contiguous_format, (LONG, SHORT)
            stride_n, stride_c, stride_p = channels * self.cells, self.cells, 1
        else:
            self.format, tile = torch.channels_last, (SHORT, LONG)
            stride_n, stride_c, stride_p = channels * self.cells, 1, channels
        parts = max(1, min(PARTS, self.cells // (4 * tile[0])))
        per_part = triton.cdiv(triton.cdiv(self.cells, parts), tile[0]) * tile[0]
        self.parts = triton.cdiv(self.cells, per_part)
        self.grid = (images, triton.cdiv(channels, tile[1]), self.parts)
        self.given = (channels, self.cells, per_part, stride_n, stride_c, stride_p)
        self.tile = {"CELLS": tile[0], "CHANNELS": tile[1]}

    def laid(self, x: torch.Tensor) -> torch.Tensor:
        """`x` as these maps lie."""
        return x.contiguous(memory_format=self.format)

    def partial(self, x: torch.Tensor) -> torch.Tensor:
        """Room for what the programs sum."""
        return x.new_empty((self.parts, *x.shape[:2]), dtype=torch.float32)


def cell_sums(a: torch.Tensor, b: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The sums of `a`, and of `a` times `b`, over the cells of each image and channel: float32 (N, C) each."""
    plan = _Plan(a) if a.is_contiguous() or a.is_contiguous(memory_format=torch.channels_last) else None
    if plan is None:
        a = a.contiguous(memory_format=torch.channels_last)
        plan = _Plan(a)
    sums = plan.partial(a)
    products = sums if b is None else plan.partial(a)
    _cell_sums[plan.grid](
        a, a if b is None else plan.laid(b), sums, products, *plan.given, PRODUCTS=b is not None, **plan.tile
    )
    return sums.sum(0), None if b is None else products.sum(0)


def affine_relu(
    u: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor | None, shortcut: torch.Tensor
) -> torch.Tensor:
    """relu(u * scale + shift + shortcut), in u's type.

    Args:
        u, shortcut: (N, C, H, W).
        scale, shift: of N C values.
    """
    if not u.is_contiguous():
        u = u.contiguous(memory_format=torch.channels_last)
    plan, out = _Plan(u), torch.empty_like(u)
    scale = scale.reshape(-1).contiguous()
    shift = None if shift is None else shift.reshape(-1).contiguous()
    _affine_relu[plan.grid](
        u, scale, scale if shift is None else shift, plan.laid(shortcut), out, *plan.given,
        SHIFTED=shift is not None, **plan.tile,
    )  # fmt: skip
    return out


def affine_relu_backward(
    grad: torch.Tensor, out: torch.Tensor, u: torch.Tensor, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """What `affine_relu` sends back.

    Args:
        out: its result.
        scale: None leaves u's gradient out.

    Returns:
        The gradients of shortcut and u, of the maps' shape and type, and of scale and shift, float32 (N, C).
    """
    plan = _Plan(out)
    of_sum = torch.empty_like(out)
    of_u = None if scale is None else torch.empty_like(out)
    sums, products = plan.partial(out), plan.partial(out)
    given = out if scale is None else scale.reshape(-1).contiguous()
    _affine_relu_backward[plan.grid](
        plan.laid(grad), out, plan.laid(u), given, of_sum, of_sum if of_u is None else of_u, sums, products,
        *plan.given, SCALED=scale is not None, **plan.tile,
    )  # fmt: skip
    return of_sum, of_u, products.sum(0), sums.sum(0)


class _ScaledSum(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, u: torch.Tensor, scale: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        out = affine_relu(u, scale, None, shortcut)
        ctx.save_for_backward(u, scale, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        u, scale, out = ctx.saved_tensors
        of_shortcut, of_u, of_scale, _ = affine_relu_backward(grad, out, u, scale)
        return of_u, of_scale.view(scale.shape).to(scale.dtype), of_shortcut


def scaled_sum(u: torch.Tensor, scale: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
    """relu(u * scale + shortcut) with gradients; scale is (N, C, 1, 1). Second derivatives are not available."""
    return _ScaledSum.apply(u, scale, shortcut)
