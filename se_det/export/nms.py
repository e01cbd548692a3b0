"""Non-maximum suppression within groups, as one operator: exporters put in what their format has.

ONNX's operator has groups of its own. torchvision's has not: there groups are moved apart, in float64, where that
costs no precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision.ops import nms

LOWEST = -3e38  # below every finite score


@torch.library.custom_op("se_det::grouped_nms", mutates_args=())
def grouped_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which boxes stay: bool (G, B).

    Args:
        boxes: float32 (G, B, 4) XYXY, not negative; only those of one group suppress each other.
        scores: float32 (G, B); -inf where there is no box.
        threshold: IoU above which the box of the lower score goes.
    """
    return as_torchvision(boxes, scores, threshold)


@grouped_nms.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def as_torchvision(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """`grouped_nms` by torchvision's operator."""
    flat = scores.flatten()
    at = (flat > LOWEST).nonzero()[:, 0]
    apart = (boxes.max() + 1).double() * (at // scores.shape[1])
    own = boxes.flatten(0, 1).index_select(0, at).double() + apart[:, None]
    keep = at.index_select(0, nms(own, flat.index_select(0, at).double(), threshold))
    return torch.zeros_like(flat, dtype=torch.bool).index_fill(0, keep, True).view(scores.shape)


def as_onnx(boxes: Any, scores: Any, threshold: float) -> Any:
    """`grouped_nms` as ONNX's operators, for the exporter's table."""
    from onnxscript import opset18 as op

    one = op.Constant(value_ints=[1])
    flat_shape = op.Constant(value_ints=[-1])
    count = op.Shape(scores, start=1, end=2)
    found = op.NonMaxSuppression(
        boxes, op.Unsqueeze(scores, one), count, op.Constant(value_float=threshold), op.Constant(value_float=LOWEST)
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
