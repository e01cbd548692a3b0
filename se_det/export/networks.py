"""Networks that can be exported: they take one tensor and return a fixed number of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..detection.rcnn import Detector

# Of the outputs' names, and the outputs of a network and of its file: how far each is apart, by name.
Differences = Callable[[Sequence[str], Sequence[torch.Tensor], Sequence[torch.Tensor]], dict[str, float]]


def relative_differences(
    outputs: Sequence[str], ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]
) -> dict[str, float]:
    """The largest absolute difference of each output, relative to its largest value, or to 1 if that is larger."""
    return dict(zip(outputs, map(_relative_difference, ours, theirs), strict=True))


def _relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return math.inf
    return float((one - other).abs().max()) / max(float(one.abs().max()), 1.0) if one.numel() else 0.0


def random_images(shape: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Normally distributed values, always the same for a shape, as the one input."""
    return (torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)),)


@dataclass(frozen=True)
class Exportable:
    """A network and the metadata of its file.

    Attributes:
        module: takes the inputs, gives a tensor or a tuple of them.
        outputs: their names.
        shapes: shapes of the images to check the file with; the network is traced with the first.
        inputs: the names of what the module takes.
        make_inputs: inputs for images of a shape, always the same.
        free: of each input the axes whose lengths are free.
        metadata: plain values, stored in the file as JSON.
        differences: measures how far two tuples of outputs are apart.
        reference: what the file is compared with; None: the module.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...] = ("images",)
    make_inputs: Callable[[Sequence[int]], tuple[torch.Tensor, ...]] = random_images
    free: tuple[tuple[int, ...], ...] = ((0, 2, 3),)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    differences: Differences = relative_differences
    reference: Callable[..., Sequence[torch.Tensor]] | None = None


# No map of a network on these has a side of one cell, for which torch.export makes a program of its own.
SHAPES = ((2, 3, 96, 128), (1, 3, 70, 90), (3, 3, 101, 77), (1, 3, 224, 224))


def classifier(model: nn.Module, *, metadata: Mapping[str, Any] | None = None) -> Exportable:
    """A classifier: normalised images (N, 3, H, W) to `logits` (N, classes)."""
    return Exportable(prepare_for_export(model), ("logits",), SHAPES, metadata=metadata or {})


def pyramid(model: Detector) -> Exportable:
    """The backbone and the pyramid of a detector: normalised images (N, 3, H, W) to its maps, "p2" to "p6".

    Images are taken to fill the batch, without padding, so MODEL.GATE.PADDING has no effect.
    """
    return Exportable(
        prepare_for_export(_Pyramid(model)), tuple(model.backbone.strides), SHAPES, metadata=normalisation(model)
    )


def normalisation(model: Detector) -> dict[str, Any]:
    """A detector's pixel mean and deviation, in the order of its channels."""
    mean, std = (value.flatten().tolist() for value in (model.pixel_mean, model.pixel_std))
    return {"pixel_mean": mean, "pixel_std": std}


class _Pyramid(nn.Module):
    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.backbone.features(images)[0].values())


def prepare_for_export(module: nn.Module) -> nn.Module:
    """Move `module` to the CPU and float32, in evaluation mode, with gradients off."""
    return module.cpu().float().eval().requires_grad_(False)
