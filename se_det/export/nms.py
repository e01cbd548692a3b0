"""Non-maximum suppression within groups, by what a format has for it.

ONNX's operator has groups of its own, and looks at each alone. torchvision's has not: there groups are moved apart, in
float64, where that costs no precision, and its time grows with the square of all their boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torchvision.ops import nms

from .tensor_boxes import ANYTHING

_as_operator: ContextVar[bool] = ContextVar("as_operator", default=False)


@contextmanager
def kept_as_operator() -> Iterator[None]:
    """Leave `grouped_nms` in graphs that are traced here as one operator, for a format that has it."""
    token = _as_operator.set(True)
    try:
        yield
    finally:
        _as_operator.reset(token)


def grouped_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which boxes stay: bool (G, B).

    Args:
        boxes: float32 (G, B, 4) XYXY, finite; only those of one group suppress each other.
        scores: float32 (G, B); below `ANYTHING` where there is no box.
        threshold: IoU above which the box of the lower score goes.
    """
    return (operator if _as_operator.get() else as_torchvision)(boxes, scores, threshold)


def as_torchvision(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """`grouped_nms` by torchvision's operator."""
    groups, count = scores.shape
    flat = scores.flatten()
    at = (flat > ANYTHING).nonzero()[:, 0]
    # Two more, in groups of their own: exporters take it for granted that several stay.
    more = flat.shape[0] + torch.arange(2, device=at.device)
    group = torch.cat([at // count, groups + torch.arange(2, device=at.device)])
    own = torch.cat([boxes.flatten(0, 1).index_select(0, at), boxes.new_ones(2, 4)]).double()
    own = own + ((boxes.max() - boxes.min().clamp(max=0) + 2).double() * group)[:, None]
    ranked = torch.cat([flat.index_select(0, at), flat.new_full((2,), ANYTHING)]).double()
    keep = torch.cat([at, more]).index_select(0, nms(own, ranked, threshold))
    stays = torch.zeros(flat.shape[0] + 2, dtype=torch.bool, device=flat.device).index_fill(0, keep, True)
    return stays[: flat.shape[0]].view(groups, count)


@torch.library.custom_op("se_det::grouped_nms", mutates_args=())
def operator(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """`grouped_nms`, as exporters see it."""
    return as_torchvision(boxes, scores, threshold)


@operator.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def as_onnx(boxes: Any, scores: Any, threshold: float) -> Any:
    """`grouped_nms` as ONNX's operators, for the exporter's table."""
    from onnxscript import opset18 as op

    one = op.Constant(value_ints=[1])
    flat_shape = op.Constant(value_ints=[-1])
    count = op.Shape(scores, start=1, end=2)
    found = op.NonMaxSuppression(
        boxes, op.Unsqueeze(scores, one), count, op.Constant(value_float=threshold), op.Constant(value_float=ANYTHING)
    )
    group = op.Gather(found, op.Constant(value_ints=[0]), axis=1)
    place = op.Gather(found, op.Constant(value_ints=[2]), axis=1)
    # One place more than there are boxes, so that what is written is never nothing.
    everything = op.Size(scores)
    at = op.Concat(
        op.Reshape(op.Add(op.Mul(group, count), place), flat_shape), op.Reshape(everything, flat_shape), axis=0
    )
    ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(at))
    zeros = op.Expand(op.Constant(value_ints=[0]), op.Reshape(op.Add(everything, one), flat_shape))
    marked = op.ScatterElements(zeros, at, ones)
    marked = op.Slice(marked, op.Constant(value_ints=[0]), op.Reshape(everything, flat_shape))
    return op.Cast(op.Reshape(marked, op.Shape(scores)), to=9)


OPERATOR = torch.ops.se_det.grouped_nms.default
