"""A detector made fast for inference: norms folded, channels last, and, where wanted, bfloat16."""

from __future__ import annotations

import logging

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.fuse import fuse_for_inference
from ..layers.half_precision import multiplies_in
from .box_head import BoxHead
from .rcnn import Detector

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

logger = logging.getLogger(__name__)


def check_precision(name: str) -> torch.dtype:
    """The type called `name`, as TEST.PRECISION.

    Raises:
        ConfigError: it is unknown.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"TEST.PRECISION '{name}' is unknown: use {' or '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def prepare_for_inference(model: nn.Module, *, precision: str = "float32") -> nn.Module:
    """Put `model` in evaluation mode and make it fast, in place; it cannot be trained or saved afterwards.

    Parts are made fast by `fuse_for_inference`. In bfloat16 compute the backbone, what follows it on whole maps, and
    the hidden layers of RoI heads; their class scores and boxes, and NMS, stay in float32. Results equal the given
    model's up to rounding.

    Raises:
        ConfigError: an unknown precision.
    """
    dtype = check_precision(precision)
    if dtype != torch.float32 and not multiplies_in(precision, model.device):
        logger.warning(
            "TEST.PRECISION is %s, which this %s has no instructions for: it will be slower than float32.",
            precision, model.device.type,
        )  # fmt: skip
    model.eval().requires_grad_(False)
    for part in model.inference_parts():
        fuse_for_inference(part, dtype=dtype)
    if model.device.type == "cpu" and isinstance(model, Detector):
        for head in model.modules():
            if isinstance(head, BoxHead):
                _make_linear_channels_last(head)
    return model


class _FlattenChannelsLast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _make_linear_channels_last(head: BoxHead) -> None:
    """Our RoIAlign's result lies channels last (torchvision's on a GPU does not): let the first linear layer read it as
    it lies, not a copy put in order."""
    first = next((layer for layer in head.children() if isinstance(layer, nn.Linear)), None)
    if first is None or not isinstance(getattr(head, "flatten", None), nn.Flatten):
        return
    channels, side = head.pooled
    weight = first.weight.data.view(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)
    first.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    head.flatten = _FlattenChannelsLast()
